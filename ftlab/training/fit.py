"""Fitting one run: its data and model, the callbacks, Lightning's Trainer."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.strategies import DDPStrategy

from ftlab.backbones.base import Backbone
from ftlab.backbones.model import TaskModel
from ftlab.data.base import DataModule
from ftlab.errors import GuardFailed
from ftlab.techniques.base import Technique
from ftlab.training import checkpoint, costs, guards
from ftlab.training.callbacks import BestEpoch, Pruning, Report, Watch
from ftlab.training.settings import TrainerSettings
from ftlab.training.unused import retire_unused


@dataclass
class Run:
    """One cell with one seed.

    Attributes:
        backbone, data, technique: fresh objects; the run changes them.
        settings: of the trainer.
        seed: of the head's initialisation, dropout, sampling and augmentation.
        select_by: the validation metric that chooses the epoch.
        directory: an existing, empty folder for everything the run writes.
        record: what the checkpoint's manifest says beside the measured.
    """

    backbone: Backbone
    data: DataModule
    technique: Technique
    settings: TrainerSettings
    seed: int
    select_by: str
    directory: Path
    record: dict[str, Any] = field(default_factory=dict)


def load(run: Run, report: Report) -> costs.MemoryMeter:
    """Seed, threads and data; memory is measured from here on."""
    if run.settings.threads:
        torch.set_num_threads(run.settings.threads)
    seed_everything(run.seed, workers=True, verbose=False)
    report({"event": "progress", "phase": "load", "done": 0, "total": 1})
    run.data.load()
    run.data.connect(run.backbone, run.seed)
    return costs.MemoryMeter(_device(run.settings))


def fit(
    run: Run, memory: costs.MemoryMeter, report: Report, pruning: Pruning | None = None
) -> tuple[Trainer, BestEpoch, dict[str, float]]:
    """Build, adapt and train.

    Without `pruning` the model is left as the best epoch made it, with its checkpoint on disk.
    """
    model, guard = adapt(run, report)
    watch = Watch(guard, report)
    metric = run.select_by.removeprefix("val/")
    upwards = run.data.task.higher_is_better(metric)
    names = {n for n, p in model.named_parameters() if p.requires_grad}
    names |= checkpoint.buffer_names(model)
    directory = run.directory / "checkpoint" if pruning is None else None
    best = BestEpoch(run.select_by, upwards, directory, names, run.record)
    callbacks: list[Callback] = [watch, best, *([pruning] if pruning else [])]
    if run.settings.patience:
        mode = "max" if upwards else "min"
        callbacks.append(EarlyStopping(run.select_by, patience=run.settings.patience, mode=mode))
    trainer = _trainer(run, callbacks)
    if not run.technique.trains:
        best.keep(model)
        return trainer, best, dict.fromkeys(costs.OF_TRAINING, 0.0)
    memory.start()
    begin = time.perf_counter()
    trainer.fit(run.technique, datamodule=run.data)
    measured = {
        "cost/train_seconds": time.perf_counter() - begin,
        "cost/peak_memory_bytes": float(memory.peak()),
        "cost/step_seconds": watch.median_step,
    }
    if trainer.interrupted:
        raise GuardFailed("the fit was interrupted")
    if torch.distributed.is_initialized():  # or metrics would wait for ranks that have gone
        torch.distributed.destroy_process_group()
    guard.check(model, run.technique.trained)
    if trainer.is_global_zero and pruning is None:
        best.restore(model, guard)
    run.data.trainer = None  # from here on one process has all examples
    trainer.optimizers = []  # inference needs no state of theirs
    run.technique.zero_grad(set_to_none=True)
    return trainer, best, measured


def adapt(run: Run, report: Report) -> tuple[TaskModel, guards.TensorGuard]:
    """Build the backbone's model and let the technique adapt it, under guard."""
    technique, task = run.technique, run.data.task
    technique.prepare(run.data)
    model = run.backbone.build(task, technique.form).eval()
    if not technique.trains:
        technique.attach(model, task).eval()
        return model, guards.TensorGuard(model)
    sample = costs.first_examples(next(iter(run.data.val_dataloader())), 2)
    unused = retire_unused(model, sample)
    if unused:
        report({"event": "note", "text": f"not used by the task, left out: {', '.join(unused)}"})
    with torch.no_grad():
        before = model.comparable(model(sample))
        technique.attach(model, task).eval()
        guards.check_identity(before, model.comparable(model(sample)), technique)
    technique.train()
    return model, guards.TensorGuard(model)


def _device(settings: TrainerSettings) -> torch.device:
    cuda = settings.accelerator in ("auto", "gpu") and torch.cuda.is_available()
    return torch.device("cuda" if cuda else "cpu")


def _trainer(run: Run, callbacks: list[Callback]) -> Trainer:
    settings = run.settings
    several = settings.devices > 1
    return Trainer(
        max_epochs=settings.max_epochs,
        precision=settings.precision,
        gradient_clip_val=settings.gradient_clip,
        accumulate_grad_batches=settings.accumulate,
        accelerator=settings.accelerator,
        devices=settings.devices,
        strategy=DDPStrategy(find_unused_parameters=run.technique.changes_freezing)
        if several
        else "auto",
        callbacks=callbacks,
        default_root_dir=run.directory,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # ours are exact, and sample by class
    )
