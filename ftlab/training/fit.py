"""Fitting one run: adapt its model, take its shortcuts, train, put the best epoch back."""

from __future__ import annotations

import copy
import faulthandler
import signal
import time
from collections.abc import Callable

import torch
from lightning import Callback, Trainer
from torch import Tensor

from ftlab.backbones.task_model import TaskModel
from ftlab.errors import GuardFailed
from ftlab.training import checkpoint, costs, fsdp
from ftlab.training.adapt import adapt
from ftlab.training.by_steps import StepSchedule
from ftlab.training.callbacks import BestEpoch, TrainingMonitor
from ftlab.training.carried import names_of
from ftlab.training.evaluate import validate
from ftlab.training.event_log import Report
from ftlab.training.guards import TensorGuard
from ftlab.training.make_trainer import make_trainer
from ftlab.training.rank_consistency import RankConsistency
from ftlab.training.run import Run
from ftlab.training.run_state import RunState
from ftlab.training.shortcuts.base import Fitting
from ftlab.training.shortcuts.take import Plans, take
from ftlab.training.solve import solve, solver_of


def fit(
    run: Run, memory: costs.MemoryMeter, report: Report, stop: Callable[[], bool] | None = None
) -> tuple[Trainer, BestEpoch, dict[str, float]]:
    """Build, adapt and train.

    A whole run's model is left as the best epoch made it, with its checkpoint on disk.

    Args:
        run: loaded (`adapt.load`).
        memory: measures the fit.
        report: takes the events.
        stop: whether a sweep ends the run, which is a trial; None for a whole run.

    Returns:
        The Trainer, the judge of the epochs, and what the fit cost.

    Raises:
        GuardFailed: the result would be wrong.
    """
    random = torch.get_rng_state()
    model, guard = adapt(run, report)
    known = len(run.technique.notes)
    try:
        return _fit(run, model, guard, memory, report, stop, random)
    finally:
        for text in run.technique.notes[known:]:
            report({"event": "note", "text": text})


def _fit(run: Run, model: TaskModel, guard: TensorGuard, memory: costs.MemoryMeter, report: Report,
         stop: Callable[[], bool] | None, random: Tensor
         ) -> tuple[Trainer, BestEpoch, dict[str, float]]:
    """Train an adapted model; `random` is the generator's state before it was built."""
    monitor = TrainingMonitor(guard, report, run.settings.log_every)
    best = best_epoch(run, model, stop)
    cut: list[Callback] = [StepSchedule(run.settings, report)] if run.settings.cuts_epochs else []
    state = RunState(run, guard, monitor, best, cut, memory, report)
    trainer = make_trainer(run, [_ranks_alike(run, guard), state, monitor, best, *cut,
                                 *_sharding(run, model)])
    fitting = Fitting(run, guard, trainer, memory, best, run.data.needed(stop is None), report)
    if not run.technique.trains:
        begin_without_training(fitting)
        return trainer, best, dict.fromkeys(costs.OF_TRAINING, 0.0)
    run.solver = solver_of(fitting)
    if run.solver is not None:
        measured = solve(fitting, run.solver) if trainer.is_global_zero else {}
        if trainer.is_global_zero and "settle" in run.technique.hooks:
            _settle(fitting)
        return trainer, best, measured
    plans = take(fitting)
    if plans.train is not None:
        return trainer, best, plans.train(plans.seconds)
    measured = _train(fitting, monitor, plans, state)
    if trainer.is_global_zero and best.directory is not None and not best.pruned:
        if run.technique.shard is not None:
            model = _whole_again(run, guard, random)
        best.restore(model, guard)
        if "settle" in run.technique.hooks:
            _settle(fitting)
    trainer.optimizers = []  # inference needs no state of theirs
    run.technique.zero_grad(set_to_none=True)
    return trainer, best, measured


def begin_without_training(fitting: Fitting) -> None:
    """Let a technique without a fit set what is to be measured, from cached rows where that pays."""
    run, model = fitting.run, fitting.run.technique.model
    known = len(run.data.notes)
    if "begin_fit" in run.technique.hooks:
        model.to(fitting.device)
        take(fitting, steps=("inputs",))
        with torch.no_grad(), fitting.trainer.precision_plugin.forward_context():
            run.technique.begin_fit(model, run.data, 0)
        run.technique.eval()
    for text in run.data.notes[known:]:
        fitting.report({"event": "note", "text": text})
    fitting.best.write(model, fitting.guard.moved(model))
    if "settle" in run.technique.hooks:
        _settle(fitting)


def best_epoch(run: Run, model: TaskModel, stop: Callable[[], bool] | None = None) -> BestEpoch:
    """The judge of a run's epochs: of a trial with `stop`, of a whole run with a checkpoint.

    Args:
        run: its data are loaded.
        model: adapted.
        stop: whether a sweep ends the trial; None for a whole run.
    """
    upwards = run.data.task.higher_is_better(run.select_by.removeprefix("val/"))
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    names |= checkpoint.buffer_names(model)
    carried = names_of(model, run.carried)
    # a trial keeps its best epoch only where it is not yet what is measured
    kept = stop is None or "settle" in run.technique.hooks
    directory = run.directory / "checkpoint" if kept else None
    return BestEpoch(run.select_by, upwards, directory, names | carried, run.record,
                     run.settings.patience, stop, carried)


def _ranks_alike(run: Run, guard: TensorGuard) -> RankConsistency:
    return RankConsistency({"configuration": run.record, "data set": run.data.fingerprint,
                            "model": guard.before})


def _sharding(run: Run, model: TaskModel) -> list[Callback]:
    """Let the technique's model be sharded where the run's strategy says so; the callbacks of it."""
    if run.settings.strategy != "fsdp" or not run.technique.trains:
        return []
    fsdp.check(model, run.technique)
    run.technique.shard = fsdp.shard
    return [fsdp.EvenValidation()]


def _train(fitting: Fitting, monitor: TrainingMonitor, plans: Plans, state: RunState
           ) -> dict[str, float]:
    """Let the Trainer train, and hold the result to the guards; returns what it cost."""
    run, trainer, report = fitting.run, fitting.trainer, fitting.report
    fitting.memory.base += plans.bytes
    fitting.memory.start()
    begin, energy = time.perf_counter(), costs.joules(fitting.device)
    with plans.training():
        # a copy, which the Trainer makes one of its rank: afterwards one process has all examples
        trainer.fit(run.technique, datamodule=copy.copy(run.data))
    # a hanging run is asked where it stands, and Lightning has put the signal's default back
    faulthandler.register(signal.SIGUSR1)
    measured = {
        "cost/train_seconds": state.seconds + time.perf_counter() - begin,
        "cost/peak_memory_bytes": float(max(state.peak, fitting.memory.peak())),
        "cost/step_seconds": monitor.median_step,
        "cost/prefix_seconds": plans.seconds,
    }
    used = costs.joules(fitting.device)
    # of one device, and of a fit that began here: others' counters nobody has read
    if energy is not None and used is not None and not state.seconds and run.settings.processes == 1:
        measured["cost/energy_joules"] = used - energy
    if trainer.interrupted:
        raise GuardFailed("the fit was interrupted")
    report({"event": "measured", "metrics": measured})
    for note in fitting.guard.check(run.technique.model, run.technique.trained):
        report({"event": "note", "text": note})
    if torch.distributed.is_initialized():  # or metrics would wait for ranks that have gone
        torch.distributed.destroy_process_group()
    return measured


def _settle(fitting: Fitting) -> None:
    """Let the technique finish the model of the best epoch, and keep what it made of it.

    Raises:
        GuardFailed: it changed what is frozen.
    """
    run, trainer, best = fitting.run, fitting.trainer, fitting.best
    technique = run.technique
    model = technique.model.to(trainer.strategy.root_device).eval()

    def score() -> float:
        metrics, _ = validate(run, model, trainer, "validation", fitting.report)
        best.scores = {f"val/{name}": value for name, value in metrics.items()}
        return best.sign * best.scores[best.select_by]

    with torch.no_grad(), trainer.precision_plugin.forward_context():
        technique.settle(model, run.data, score)
    fitting.guard.check_settled(model, technique.trained)
    score()
    best.write(model, fitting.guard.moved(model))


def _whole_again(run: Run, guard: TensorGuard, random: Tensor) -> TaskModel:
    """The model as it was before it was sharded and trained, on one device.

    Raises:
        GuardFailed: it is not bit for bit what it was.
    """
    run.technique.shard = None
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(random)
        model, again = adapt(run, lambda event: None, whole=True)
    if again.before != guard.before:
        raise GuardFailed("the model, built a second time after the sharded fit, is another one")
    return model
