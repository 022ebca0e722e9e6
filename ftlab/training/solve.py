"""Runs whose head is put to its optimum, in place of epochs."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ftlab.techniques.features import Features, linear_head
from ftlab.techniques.head_optimum import ByEpochs, HeadOptimum, HeadProblem, Solver
from ftlab.training.event_log import EventLog, metrics_event
from ftlab.training.shortcuts.base import Fitting
from ftlab.training.shortcuts.take import take


def solver_of(fitting: Fitting) -> Solver | None:
    """The solver of a run's head; None where it trains by epochs, which is noted if it is a pity."""
    run = fitting.run
    if "optimum" not in run.technique.hooks:
        return None
    model = run.technique.model.to(fitting.device)
    try:
        with fitting.trainer.precision_plugin.forward_context():
            solver = run.technique.optimum(model, run.data)
        if solver is not None and run.settings.strategy == "fsdp":
            raise ByEpochs("its weights are shared out")
        return solver
    except ByEpochs as error:
        fitting.report({"event": "note", "text": f"the head trains by epochs: {error}"})
        return None
    finally:
        run.technique.train()


def problem_of(fitting: Fitting) -> HeadProblem:
    """The problem of a run's head, of which nothing is computed yet."""
    run = fitting.run
    found = linear_head(run.technique.model)
    assert found is not None  # or there is no solver
    _, layer = found
    views = min(run.data.views or 0, run.settings.max_epochs)
    features = Features(run.technique.model, run.data, fitting.trainer.precision_plugin.forward_context,
                        run.select_by.removeprefix("val/"), views,
                        EventLog(1, [fitting.report]).alive)
    return HeadProblem(features, layer.out_features, layer.bias is not None)


def solve(fitting: Fitting, solver: Solver) -> dict[str, float]:
    """Put the head of a run to its optimum, and leave its checkpoint; returns what it cost.

    Raises:
        GuardFailed: the optimum was not reached, or the result would be wrong.
    """
    plans = take(fitting, steps=("inputs",))
    fitting.memory.base += plans.bytes
    fitting.memory.start()
    begin = time.perf_counter()
    optimum = solver(problem_of(fitting))
    seconds = time.perf_counter() - begin
    settle(fitting, optimum)
    return costs_of([optimum], seconds, plans.seconds, fitting.memory.peak())


def settle(fitting: Fitting, optimum: HeadOptimum, among: set[str] | None = None) -> None:
    """Give a run's model its head, report it, and hold the run to what the guards ask.

    Args:
        fitting: the run; its model may be shared with others.
        optimum: of its head.
        among: names of tensors to look at, None for all.

    Raises:
        GuardFailed: the result would be wrong.
    """
    run, guard, best = fitting.run, fitting.guard, fitting.best
    model = run.technique.model
    found = linear_head(model)
    assert found is not None  # or there is no solver
    name, layer = found
    names = {f"{name}.{parameter}" for parameter, _ in layer.named_parameters()}
    optimum.put(layer)
    scores = {f"val/{metric}": value for metric, value in optimum.scores.items()}
    fitting.report(metrics_event(optimum.iterations, {
        **scores, "train/epoch_loss": optimum.loss, "train/grad_norm": optimum.gradient,
        "epoch": 1}))
    fitting.report({"event": "note", "text": str(optimum)})
    best.judge(scores, 1)
    best.ends(last=True)
    run.technique.trained |= names
    guard.reached |= names
    for text in guard.check(model, names, among):
        fitting.report({"event": "note", "text": text})
    best.write(model, guard.moved(model, among))


def costs_of(optima: Sequence[HeadOptimum], seconds: float, prepared: float,
             memory: int) -> dict[str, float]:
    """The costs of the fit a run, of runs that shared it."""
    runs, steps = max(1, len(optima)), max(1, sum(optimum.iterations for optimum in optima))
    return {"cost/train_seconds": seconds / runs, "cost/peak_memory_bytes": float(memory),
            "cost/step_seconds": seconds / steps, "cost/prefix_seconds": prepared / runs}
