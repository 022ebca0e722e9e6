"""Has a run's loaders bring what its frozen prefix gives, where that is known or worth keeping."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import transformers
from lightning import Trainer

from ftlab.backbones.passes import Unplayable
from ftlab.backbones.prefix import Prefix
from ftlab.data.base import SplitName
from ftlab.training import prefix_cache
from ftlab.training.callbacks import ALIVE, Report
from ftlab.training.evaluate import placing
from ftlab.training.guards import TensorGuard

if TYPE_CHECKING:
    from ftlab.training.fit import Run


ORDER = ("batch_size", "sampling", "workers")
"""Settings of a data module that say nothing of what a row is."""



def attach(
    run: Run, trainer: Trainer, guard: TensorGuard, splits: Sequence[SplitName], report: Report
) -> float:
    """Compute a frozen prefix once, or take what another run has computed, and say so.

    Args:
        run: its model is adapted, its data connected.
        trainer: for device and precision.
        guard: knows what the prefix's weights are.
        splits: that the run will read.
        report: hears what was decided, and why.

    Returns:
        Seconds that it took.
    """
    begin = time.perf_counter()
    reason = _why_not(run)
    if not reason:
        try:
            report({"event": "shortcut", "text": _attach(run, trainer, guard, splits, report)})
            return time.perf_counter() - begin
        except Unplayable as error:
            reason = str(error)
        except OSError as error:
            reason = f"{prefix_cache.folder()}: {error.strerror or error}"
        run.data.handed.clear()
    report({"event": "shortcut", "text": f"the frozen prefix is not cached: {reason}"})
    return time.perf_counter() - begin


def _why_not(run: Run) -> str:
    if run.plain:
        return "--plain"
    if not run.record:
        return "the run has no specification to know it by"
    if getattr(run.data, "augment", None) is not None:
        return "augmentation changes the examples every epoch"
    if run.data.packs:
        return "packing puts several texts into a row"
    if run.settings.strategy == "fsdp":
        return "its weights are shared out"
    return ""


def _attach(
    run: Run, trainer: Trainer, guard: TensorGuard, splits: Sequence[SplitName], report: Report
) -> str:
    model, data = run.technique.model, run.data
    device = trainer.strategy.root_device
    place, context = placing(trainer, device), trainer.precision_plugin.forward_context
    model.to(device)
    with context():
        prefix = Prefix(model, place(next(iter(data.val_dataloader()))))
    named = [name for name in guard.before if any(b.holds(name) for b in model.blocks[: prefix.blocks])]
    parts = {
        "places": prefix.places,
        "weights": {name: guard.before[name] for name in named},
        "network": type(model.network).__name__,
        "backbone": run.record["backbone"],
        "data": {name: value for name, value in run.record["data"]["init_args"].items()
                 if name not in ORDER},
        "rows": data.fingerprint,
        "precision": run.settings.precision,
        "device": device.type,
        "versions": [torch.__version__, transformers.__version__],
    }

    def record(split: SplitName) -> prefix_cache.Recorded:
        model.eval()
        for raw in _heard(data.eval_loader(split), report):
            batch = place(raw)
            with torch.no_grad(), context():
                handed, masks = prefix.record(batch)
            yield (raw["index"], [each if each is None else each.cpu() for each in masks],
                   [tensor.cpu() for tensor in handed])

    size, made = 0, 0
    for split in splits:
        key = prefix_cache.key_of({**parts, "split": split})
        found, here = prefix_cache.obtain(key, len(data.splits[split]), partial(record, split),
                                          lambda: report(ALIVE))
        data.handed[split] = found
        size, made = size + found.bytes, made + here
    model.playing = prefix.playing
    run.technique.train()
    whence = {0: "read", len(splits): "computed"}.get(made, "computed in part")
    return (f"prefix cache: {prefix.blocks} of {len(model.blocks)} blocks are frozen; what they "
            f"give was {whence} ({size / 1e6:,.1f} MB)")


def _heard(batches: Iterable[Any], report: Report) -> Iterable[Any]:
    said = time.monotonic()
    for batch in batches:
        if time.monotonic() - said > 1:
            said = time.monotonic()
            report(ALIVE)
        yield batch
