"""One run: build, adapt, fit, restore the best epoch, test once, measure, write."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning import Trainer

from ftlab.backbones.heads.single_precision import half_of
from ftlab.data.examples import NAMED, SplitName
from ftlab.errors import GuardFailed, InputError
from ftlab.tasks.fonts import any_script
from ftlab.training import costs, guards, quantized, retention, run_state, stages
from ftlab.training.adapt import load
from ftlab.training.callbacks import BestEpoch
from ftlab.training.evaluate import measure_variant, placing, validate, write_predictions
from ftlab.training.event_log import Report
from ftlab.training.fit import fit
from ftlab.training.run import Run

MERGED = "cost/latency_merged_seconds"


def execute(run: Run, report: Report) -> dict[str, float]:
    """Fit once, test once.

    It writes `checkpoint/`, `predictions/` and `figures/` in the run's directory and reports
    events: `progress`, `metrics`, `note`, `shortcut`.

    Returns:
        The final metrics: `val/...`, `test/...`, `cost/...`. In DDP only the first process
        evaluates; the others return nothing.

    Raises:
        GuardFailed: the result would be wrong.
    """
    with run_state.removed(run):
        stages.learn(run, report)
        memory = load(run, report)
        trainer, best, measured = fit(run, memory, report)
        if not trainer.is_global_zero:
            return {}
        results = finish(run, memory, trainer, best, measured, report)
    return results | {"cost/total_seconds": run_state.seconds_of_run(run)}


def finish(
    run: Run, memory: costs.MemoryMeter, trainer: Trainer, best: BestEpoch,
    measured: dict[str, float], report: Report,
) -> dict[str, float]:
    """Evaluate and measure after a fit whose best epoch has been restored.

    Returns:
        The final metrics, but for the total time.

    Raises:
        GuardFailed: the result would be wrong.
    """
    report({"event": "progress", "phase": "test", "done": 0, "total": 1})
    device = trainer.strategy.root_device
    if "answers" in run.technique.hooks:  # another system's, whose costs nobody knows
        zeros = ("cost/trainable_parameters", "cost/checkpoint_bytes", "best_epoch")
        return _evaluate(run, device, trainer, report) | measured | dict.fromkeys(zeros, 0.0)
    results = _memory_of_inference(run, memory, device, trainer)
    results |= _evaluate(run, device, trainer, report)
    model = run.technique.model
    results |= measured | costs.parameter_counts(model, run.technique.trained)
    results |= {
        "cost/checkpoint_bytes": best.bytes,
        "best_epoch": best.epoch,
    }
    if run.learned is not None:
        results["cost/before_seconds"] = run.learned.seconds
    own = _audit(run, device, trainer) | run.technique.costs()
    results |= {f"cost/{name}": value for name, value in own.items()}
    results |= _inference(run, device, trainer, report)
    if run.retain:
        results |= retention.measure(run, trainer, report)
    if run.quantized:
        results |= quantized.measure(run, trainer, MERGED in results, report)
    return results


def _evaluate(
    run: Run, device: torch.device, trainer: Trainer, report: Report
) -> dict[str, float]:
    """Validation and test of the restored model; predictions and figures on disk."""
    model, data = run.technique.model.to(device), run.data
    predictions = run.directory / "predictions"
    predictions.mkdir(exist_ok=True)
    results: dict[str, float] = {}
    records: dict[SplitName, dict[str, list[Any]]] = {}
    for split in data.measured:
        answers = run.technique.answers(data, split)
        if answers is not None and not answers:
            continue
        metrics, records[split] = validate(run, model, trainer, split, report)
        prefix = "val" if split == "validation" else split
        results |= {f"{prefix}/{name}": value for name, value in metrics.items()}
        write_predictions(predictions / f"{split}.parquet", records[split])
        report({"event": "measured", "metrics": results})
    scores = {"": {name.removeprefix("test/"): value for name, value in results.items()
                   if name.startswith("test/")}}
    for name, context in run.technique.variants(model).items():
        if f"{NAMED}{name}" in data.splits or name in run.quantized:
            raise InputError(f"{name} is a test set or in quantized, and a variant that the technique "
                             "makes of the model", "give the test set another name, or leave it out")
        with torch.no_grad(), context:
            scores[name] = measure_variant(run, model, trainer, name, report)
        results |= {f"{NAMED}{name}/{metric}": value for metric, value in scores[name].items()}
    results |= {f"test/{name}": value for name, value in run.technique.conclude(scores).items()}
    if not math.isfinite(results.get("test/loss", 0.0)):
        raise GuardFailed("non-finite loss on the test split")
    figures = run.directory / "figures"
    figures.mkdir(exist_ok=True)
    with any_script():
        for name, figure in data.task.figures(records["test"]).items():
            figure.savefig(figures / f"{name}.png", dpi=120)
    return results


def _audit(run: Run, device: torch.device, trainer: Trainer) -> dict[str, float]:
    """Measurements of the technique's own."""
    if "audit" not in run.technique.hooks:
        return {}
    model = run.technique.model.to(device).eval()
    with torch.inference_mode(), trainer.precision_plugin.forward_context():
        return run.technique.audit(model, run.data)


def _memory_of_inference(
    run: Run, memory: costs.MemoryMeter, device: torch.device, trainer: Trainer
) -> dict[str, float]:
    """Peak of one test batch; first of all that follows the fit, whose imports would count."""
    batch = placing(trainer, device)(next(iter(run.data.test_dataloader())))
    model = run.technique.model.to(device).eval()
    memory.start()
    with torch.inference_mode(), trainer.precision_plugin.forward_context():
        run.data.task.predict(model, costs.without_target(batch))
    return {"cost/inference_memory_bytes": memory.peak()}


def _inference(run: Run, device: torch.device, trainer: Trainer, report: Report) -> dict[str, float]:
    """FLOPs, and latency unmerged and merged."""
    technique, model = run.technique, run.technique.model
    place, context = placing(trainer, device), trainer.precision_plugin.forward_context
    run.data = run.data.with_cached({})  # from here on all is computed
    results = costs.flops(technique, place(costs.typical_batch(run.data)), context)
    batch = place(next(iter(run.data.test_dataloader())))
    one, task = costs.without_target(costs.first_examples(batch, 1)), run.data.task
    results["cost/latency_seconds"] = costs.latency(task, model, one, context)
    with torch.inference_mode(), context():
        unmerged = model.comparable(model(batch))
        if not technique.merge(model):
            return results
        gap = guards.check_merge(unmerged, model.comparable(model(batch)), model)
    if dtype := half_of(model):
        report({"event": "note", "text": f"merged into weights of {dtype}, by which outputs change by up to "
                f"{gap:.2g}; all is measured unmerged, but for the latency of the merged model"})
    results[MERGED] = costs.latency(task, model, one, context)
    return results
