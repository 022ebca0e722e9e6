"""Fitting one run: its data and model, the callbacks, Lightning's Trainer."""

from __future__ import annotations

import faulthandler
import signal
import time
from collections.abc import Mapping
from typing import Any

import torch
from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.strategies import DDPStrategy, Strategy
from torch import Tensor

from ftlab.backbones.task_model import TaskModel
from ftlab.data.examples import SPLITS
from ftlab.errors import GuardFailed
from ftlab.training import (
    batches,
    checkpoint,
    costs,
    fsdp,
    guards,
    hardware,
    merging,
    precision,
)
from ftlab.training.callbacks import BestEpoch, Pruning, Report, TrainingMonitor
from ftlab.training.declined import NotApplicable
from ftlab.training.heads.cached_head import CachedHead, find_head
from ftlab.training.heads.head_members import SeedGroup, StackedRun, random_state
from ftlab.training.heads.stacked_heads import train_stack
from ftlab.training.padding_sensitivity import reads_padding
from ftlab.training.prefix import use_cache
from ftlab.training.rank_consistency import RankConsistency
from ftlab.training.run import Run
from ftlab.training.unused_parameters import retire_unused


def load(run: Run, report: Report) -> costs.MemoryMeter:
    """Seed, threads and data; memory is measured from here on."""
    if run.settings.threads:  # of the run, which all its processes share
        torch.set_num_threads(max(1, run.settings.threads // run.settings.devices))
    seed_everything(run.seed, workers=True, verbose=False)
    report({"event": "progress", "phase": "load", "done": 0, "total": 1})
    run.data.plain = run.plain
    run.data.load()
    run.data.connect(run.backbone, run.seed)
    device = hardware.device_of(run.settings)
    if device.type == "cuda":
        hardware.set_tf32(run.settings.tf32)
        run.data.pinned = True
    return costs.MemoryMeter(device)


def fit(
    run: Run, memory: costs.MemoryMeter, report: Report, pruning: Pruning | None = None
) -> tuple[Trainer, BestEpoch, dict[str, float]]:
    """Build, adapt and train.

    Without `pruning` the model is left as the best epoch made it, with its checkpoint on disk.
    """
    random = torch.get_rng_state()
    model, guard = adapt(run, report)
    sharded = run.settings.strategy == "fsdp" and run.technique.trains
    if sharded:
        fsdp.check(model)
        run.technique.shard = fsdp.shard
    watch = TrainingMonitor(guard, report, run.settings.log_every)
    best = best_epoch(run, model, whole=pruning is None)
    alike = {"configuration": run.record, "data set": run.data.fingerprint, "model": guard.before}
    callbacks: list[Callback] = [RankConsistency(alike), watch, best, *([pruning] if pruning else [])]
    if sharded:
        callbacks.append(fsdp.EvenValidation())
    if run.settings.patience:
        mode = "max" if best.sign > 0 else "min"
        callbacks.append(EarlyStopping(run.select_by, patience=run.settings.patience, mode=mode))
    trainer = make_trainer(run, callbacks)
    if not run.technique.trains:
        best.keep(model)
        return trainer, best, dict.fromkeys(costs.OF_TRAINING, 0.0)
    splits = SPLITS if pruning is None else SPLITS[:2]
    cached = use_cache.attach(run, trainer, guard, splits, report)
    head = _head(run, trainer, report)
    if head is not None:
        member = _only_member(run, head, guard, best, report)
        member.stop = pruning.stop if pruning else member.stop
        measured = train_stack([member], head, memory, cached)
        member.settle(head, model)
        if pruning:
            pruning.pruned = member.pruned
        return trainer, best, measured
    # what they take is no need of the technique's
    memory.base += hardware.settle_images(run, trainer.strategy.root_device, report)
    memory.start()
    begin = time.perf_counter()
    with hardware.compiled(run, model, report):
        trainer.fit(run.technique, datamodule=run.data)
    # a hanging run is asked where it stands, and Lightning has put the signal's default back
    faulthandler.register(signal.SIGUSR1)
    measured = {
        "cost/train_seconds": time.perf_counter() - begin,
        "cost/peak_memory_bytes": float(memory.peak()),
        "cost/step_seconds": watch.median_step,
        "cost/prefix_seconds": cached,
    }
    if trainer.interrupted:
        raise GuardFailed("the fit was interrupted")
    report({"event": "measured", "metrics": measured})
    for note in guard.check(model, run.technique.trained):
        report({"event": "note", "text": note})
    if torch.distributed.is_initialized():  # or metrics would wait for ranks that have gone
        torch.distributed.destroy_process_group()
    run.data.trainer = None  # from here on one process has all examples
    if trainer.is_global_zero and pruning is None:
        if sharded:
            model = _whole_again(run, guard, random)
        best.restore(model, guard)
    trainer.optimizers = []  # inference needs no state of theirs
    run.technique.zero_grad(set_to_none=True)
    return trainer, best, measured


def _head(run: Run, trainer: Trainer, report: Report) -> CachedHead | None:
    """The head of a run that needs no Trainer; says so, or why it does."""
    if run.technique.together != "heads" or not run.data.handed:
        return None  # the prefix has said why
    try:
        head = find_head(run, trainer)
    except NotApplicable as error:
        report({"event": "shortcut", "text": f"the head is trained by the Trainer: {error}"})
        return None
    report({"event": "shortcut", "text": "the head is trained on cached features alone"})
    return head


def _only_member(
    run: Run, head: CachedHead, guard: guards.TensorGuard, best: BestEpoch, report: Report
) -> StackedRun:
    seed = SeedGroup(run.data, guard, head.parameters(), random_state(head.linear.weight.device))
    return StackedRun(run, seed, best, report)


def best_epoch(run: Run, model: TaskModel, whole: bool) -> BestEpoch:
    """What chooses a run's epoch; of a whole run it keeps the checkpoint."""
    upwards = run.data.task.higher_is_better(run.select_by.removeprefix("val/"))
    names = {n for n, p in model.named_parameters() if p.requires_grad}
    names |= checkpoint.buffer_names(model)
    directory = run.directory / "checkpoint" if whole else None
    return BestEpoch(run.select_by, upwards, directory, names, run.record)


def adapt(run: Run, report: Report) -> tuple[TaskModel, guards.TensorGuard]:
    """Build the backbone's model and let the technique adapt it, under guard.

    The weights have the run's precision before the technique and the guards see them.
    """
    technique, task = run.technique, run.data.task
    technique.prepare(run.data)
    model = run.backbone.build(task, technique.form).eval()
    name = hardware.suit(run, model, report)
    precision.convert(model, name)
    sample = costs.first_examples(next(iter(run.data.val_dataloader())), 2)
    sample = precision.convert_inputs(sample, name)
    if not technique.trains:
        if model.new_ids:
            report({"event": "note", "text": f"new_tokens stay as they started: "
                    f"{type(technique).__name__} trains nothing"})
        technique.attach(model, task).eval()
        precision.convert(model, name)  # what the technique has added
        # the target is the task's, and the technique may want a model of another form
        _retire(model, costs.without_target(sample) if technique.form else sample, report)
        return model, guards.TensorGuard(model)
    _retire(model, sample, report)
    if reads_padding(model, run.data, lambda batch: precision.convert_inputs(batch, name)):
        report({"event": "note", "text": f"{type(model.network).__name__} reads padding, by its "
                "own design: an example's score depends a little on what it is batched with"})
    with torch.no_grad():
        with batches.watched(model, len(sample["index"])) as single:
            before = model.comparable(model(sample))
        technique.attach(model, task).eval()
        precision.convert(model, name)
        hardware.lay_out(run, model)  # what the technique has added
        guards.check_identity(before, model.comparable(model(sample)), technique, model)
        merging.check_layers(technique, model, sample)
    technique.train()
    for text in batches.settle(run.data, model, single, run.settings):
        report({"event": "note", "text": text})
    return model, guards.TensorGuard(model)


def _whole_again(run: Run, guard: guards.TensorGuard, random: Tensor) -> TaskModel:
    """The model as it was before it was sharded and trained, on one device.

    Raises:
        GuardFailed: it is not bit for bit what it was.
    """
    run.technique.shard = None
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(random)
        model, again = adapt(run, lambda event: None)
    if again.before != guard.before:
        raise GuardFailed("the model, built a second time after the sharded fit, is another one")
    return model


def _retire(model: TaskModel, sample: Mapping[str, Any], report: Report) -> None:
    unused = retire_unused(model, sample)
    if unused:
        report({"event": "note", "text": f"not used by the task, left out: {', '.join(unused)}"})


def make_trainer(run: Run, callbacks: list[Callback]) -> Trainer:
    """Lightning's Trainer with a run's settings."""
    settings = run.settings
    return Trainer(
        max_epochs=settings.max_epochs,
        **precision.chosen(settings, hardware.device_of(settings)),
        gradient_clip_val=settings.gradient_clip,
        accumulate_grad_batches=settings.accumulate,
        accelerator=settings.accelerator,
        devices=settings.devices,
        strategy=_strategy(run),
        callbacks=callbacks,
        default_root_dir=run.directory,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # ours are exact, and sample by class
        inference_mode=settings.strategy != "fsdp",  # what it gathers serves training next
    )


def _strategy(run: Run) -> Strategy | str:
    settings = run.settings
    if settings.devices == 1:
        return "auto"
    if settings.strategy == "fsdp":
        return fsdp.strategy(settings.devices)
    return DDPStrategy(find_unused_parameters=run.technique.changes_freezing)
