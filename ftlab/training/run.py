"""One run: build, adapt, fit, restore the best epoch, test once, measure, write."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
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
from ftlab.training.callbacks import BestEpoch, Report, Watch
from ftlab.training.evaluate import evaluate, write_predictions
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


def execute(run: Run, report: Report) -> dict[str, float]:
    """Fit once, test once.

    It writes `checkpoint/`, `predictions/` and `figures/` in the run's directory and reports
    events: `progress`, `metrics`, `note`.

    Returns:
        The final metrics: `val/...`, `test/...`, `cost/...`. In DDP only the first process
        evaluates; the others return nothing.

    Raises:
        GuardFailed: the result would be wrong.
    """
    begin = time.perf_counter()
    if run.settings.threads:
        torch.set_num_threads(run.settings.threads)
    seed_everything(run.seed, workers=True, verbose=False)
    report({"event": "progress", "phase": "load", "done": 0, "total": 1})
    run.data.load()
    run.data.connect(run.backbone, run.seed)
    memory = costs.MemoryMeter(_device(run.settings))
    trainer, best, measured = _fit(run, memory, report)
    if not trainer.is_global_zero:
        return {}
    report({"event": "progress", "phase": "test", "done": 0, "total": 1})
    device = trainer.strategy.root_device
    results = _memory_of_inference(run, memory, device, trainer)
    results |= _evaluate(run, device, trainer)
    model = run.technique.model
    results |= measured | costs.parameter_counts(model, run.technique.trained)
    results |= {
        "cost/checkpoint_bytes": best.bytes,
        "best_epoch": best.epoch,
    }
    results |= _inference(run, device, trainer)
    return results | {"cost/total_seconds": time.perf_counter() - begin}


def _fit(
    run: Run, memory: costs.MemoryMeter, report: Report
) -> tuple[Trainer, BestEpoch, dict[str, float]]:
    """Build, adapt and train; the model is left as the best epoch made it."""
    model, guard = adapt(run, report)
    watch = Watch(guard, report)
    metric = run.select_by.removeprefix("val/")
    upwards = run.data.task.higher_is_better(metric)
    names = {n for n, p in model.named_parameters() if p.requires_grad}
    names |= checkpoint.buffer_names(model)
    best = BestEpoch(run.select_by, upwards, run.directory / "checkpoint", names, run.record)
    callbacks: list[Callback] = [watch, best]
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
    if trainer.is_global_zero:
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


def _evaluate(run: Run, device: torch.device, trainer: Trainer) -> dict[str, float]:
    """Validation and test of the restored model; predictions and figures on disk."""
    model, data = run.technique.model.to(device), run.data
    predictions = run.directory / "predictions"
    predictions.mkdir(exist_ok=True)
    results: dict[str, float] = {}
    loaders = {"validation": data.val_dataloader(), "test": data.test_dataloader()}
    for split, loader in loaders.items():
        ids = data.splits[split].ids  # type: ignore[index]  # the two names are split names
        with trainer.precision_plugin.forward_context():
            metrics, records = evaluate(model, loader, data.task, ids, _placing(trainer, device))
        prefix = "val" if split == "validation" else split
        results |= {f"{prefix}/{name}": value for name, value in metrics.items()}
        write_predictions(predictions / f"{split}.parquet", records)
    if not math.isfinite(results["test/loss"]):
        raise GuardFailed("non-finite loss on the test split")
    figures = run.directory / "figures"
    figures.mkdir(exist_ok=True)
    for name, figure in data.task.figures(records).items():
        figure.savefig(figures / f"{name}.png", dpi=120)
    return results


def _placing(trainer: Trainer, device: torch.device) -> Any:
    def place(batch: Mapping[str, Any]) -> Mapping[str, Any]:
        moved = trainer.strategy.batch_to_device(batch, device)
        return trainer.precision_plugin.convert_input(moved)

    return place


def _memory_of_inference(
    run: Run, memory: costs.MemoryMeter, device: torch.device, trainer: Trainer
) -> dict[str, float]:
    """Peak of one test batch; first of all that follows the fit, whose imports would count."""
    batch = _placing(trainer, device)(next(iter(run.data.test_dataloader())))
    model = run.technique.model.to(device).eval()
    memory.start()
    with torch.inference_mode(), trainer.precision_plugin.forward_context():
        run.data.task.predict(model, costs.without_target(batch))
    return {"cost/inference_memory_bytes": memory.peak()}


def _inference(run: Run, device: torch.device, trainer: Trainer) -> dict[str, float]:
    """FLOPs, and latency unmerged and merged."""
    technique, model = run.technique, run.technique.model
    place = _placing(trainer, device)
    results = costs.flops(technique, place(next(iter(run.data.train_dataloader()))))
    batch = place(next(iter(run.data.test_dataloader())))
    one, task = costs.without_target(costs.first_examples(batch, 1)), run.data.task
    results["cost/latency_seconds"] = costs.latency(task, model, one)
    with torch.inference_mode(), trainer.precision_plugin.forward_context():
        unmerged = model.comparable(model(batch))
        if not technique.merge(model):
            return results
        guards.check_merge(unmerged, model.comparable(model(batch)))
    results["cost/latency_merged_seconds"] = costs.latency(task, model, one)
    return results
