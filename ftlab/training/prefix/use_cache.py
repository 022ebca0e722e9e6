"""Has a run read what its frozen prefix gives, where that is known or worth keeping."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from typing import Any

import torch
import transformers
from lightning import Trainer
from torch import nn

from ftlab.backbones import cache_folder
from ftlab.backbones.block import Block
from ftlab.backbones.forward_trace import NotReplayable
from ftlab.backbones.prefix_replay import FrozenPrefix, leading
from ftlab.data.base import DataModule
from ftlab.data.examples import SplitName
from ftlab.techniques.base import is_norm
from ftlab.training.callbacks import ALIVE, Report
from ftlab.training.costs import typical_batch
from ftlab.training.declined import NotApplicable
from ftlab.training.evaluate import Placing, placing
from ftlab.training.guards import TensorGuard
from ftlab.training.precision import Context
from ftlab.training.prefix import activation_files
from ftlab.training.prefix.cache_estimate import (
    BatchTiming,
    CacheFile,
    Forecast,
    ForwardPasses,
    fastest,
    foresee,
    padded,
    stored_bytes,
)
from ftlab.training.run import Run

ORDER = ("batch_size", "sampling", "workers", "bucketing")
"""Settings of a data module that say nothing of what a row is."""
SPARE = 1_000_000_000  # bytes of the disk that a cache leaves free


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
    reason = why_not(run)
    if not reason:
        try:
            report({"event": "shortcut", "text": _attach(run, trainer, guard, splits, report)})
            return time.perf_counter() - begin
        except (NotReplayable, NotApplicable) as error:
            reason = str(error)
        except OSError as error:
            reason = f"{activation_files.folder()}: {error.strerror or error}"
        run.data.handed.clear()
        run.technique.train()
    report({"event": "shortcut", "text": f"the frozen prefix is not cached: {reason}"})
    return time.perf_counter() - begin


def why_not(run: Run) -> str:
    """What the settings of a run have against a cache; empty where nothing."""
    if run.plain:
        return "--plain"
    if not run.record:
        return "the run has no specification to know it by"
    augment = getattr(run.data, "augment", None)
    if augment is not None and not run.data.views:
        return "augmentation changes the examples every epoch (augment: {views: 4} would keep four)"
    if augment is not None and getattr(augment, "mix", "none") != "none":
        return "mixtures of a batch's examples are new every time"
    if run.data.packs:
        return "packing puts several texts into a row"
    if run.settings.strategy == "fsdp":
        return "its weights are shared out"
    return ""


def _attach(
    run: Run, trainer: Trainer, guard: TensorGuard, splits: Sequence[SplitName], report: Report
) -> str:
    model, data, device = run.technique.model, run.data, trainer.strategy.root_device
    model.to(device)
    source = PrefixSource(run, guard.before, placing(trainer, device),
                    trainer.precision_plugin.forward_context)
    wanted = named(run, splits)
    keys = {name: source.key(name) for name in wanted}
    foreseen = ""
    if not all(activation_files.path_of(key).exists() for key in keys.values()):
        foreseen = f"; {_worth_making(source, splits, report)}"
    opened, made = {}, 0
    for name, split in wanted.items():
        opened[name], here = activation_files.obtain(
            keys[name], len(data.splits[split]), partial(source.record, name, report),
            lambda: report(ALIVE))
        made += here
    data.handed |= opened  # at last: from here on batches bring names
    data.unread = not source.prefix.reads_inputs
    size = sum(each.bytes for each in opened.values())
    model.playing = partial(_playing, source.prefix, data)
    run.technique.train()
    whence = {0: "read", len(wanted): "computed"}.get(made, "computed in part")
    return (f"prefix cache: {source.prefix.blocks} of {len(model.blocks)} blocks are frozen; what "
            f"they give was {whence} ({size / 1e6:,.1f} MB{foreseen})")


def _worth_making(
    source: PrefixSource, splits: Sequence[SplitName], report: Report
) -> Forecast:
    """What making the files will cost and save.

    Raises:
        Declined: more than it saves, or more room than there is.
    """
    forecast = source.foresee(splits)
    report({"event": "forecast", **asdict(forecast)})
    room = min(cache_folder.limit(), activation_files.free() - SPARE)
    if forecast.bytes > room:
        raise NotApplicable(f"it would take {forecast.bytes / 1e6:,.0f} MB, and there is room for "
                        f"{max(0, room) / 1e6:,.0f}")
    if not forecast.pays:
        raise NotApplicable(f"{source.prefix.blocks} of "
                        f"{len(source.run.technique.model.blocks)} blocks are frozen, but it would not pay: {forecast}")
    return forecast


def _playing(prefix: FrozenPrefix, data: DataModule, name: str, batch: Any) -> AbstractContextManager[None]:
    return prefix.playing(data.handed[name], batch)


def named(run: Run, splits: Sequence[SplitName]) -> dict[str, SplitName]:
    """What a run's batches bring as `prefix` -> its split: each view of train has a name."""
    seen = min(run.data.views or 0, run.settings.max_epochs)  # an epoch sees one
    views = [f"train/{view}" for view in range(seen)] or ["train"]
    return {name: split for split in splits for name in (views if split == "train" else [split])}


@dataclass
class PrefixSource:
    """What computes a run's prefix, and what its results follow from.

    Attributes:
        run: its model is adapted, its data connected.
        weights: digests of the model's tensors, by name (`TensorGuard.before`).
        place: moves a batch to the model.
        context: that the model computes in.
    """

    run: Run
    weights: Mapping[str, Any]
    place: Placing
    context: Context

    @cached_property
    def prefix(self) -> FrozenPrefix:
        """Of the adapted model.

        Raises:
            Unplayable: there is none that could be played back.
        """
        model = self.run.technique.model
        if _looks_up(model.blocks[: leading(model)]):
            raise NotReplayable("only embeddings are frozen, which are as fast to look up as to read")
        sample = self.place(next(iter(self.run.data.val_dataloader())))
        with self.context():
            return FrozenPrefix(model, sample)

    @cached_property
    def _parts(self) -> dict[str, Any]:
        model, data, record = self.run.technique.model, self.run.data, self.run.record
        frozen = model.blocks[: self.prefix.blocks]
        return {
            "places": self.prefix.places,
            "weights": {name: value for name, value in self.weights.items()
                        if any(block.holds(name) for block in frozen)},
            "network": type(model.network).__name__,
            "backbone": record["backbone"],
            "data": {name: value for name, value in record["data"]["init_args"].items()
                     if name not in ORDER},
            "rows": data.fingerprint,
            "precision": self.run.settings.precision,
            "device": next(model.parameters()).device.type,
            "versions": [torch.__version__, transformers.__version__],
        }

    def key(self, name: str) -> str:
        """Of the file of a split or view."""
        return activation_files.key_of({**self._parts, "split": name})

    def record(self, name: str, report: Report) -> activation_files.Recorded:
        """What the prefix hands on for each example, batch by batch, on the CPU."""
        model, data = self.run.technique.model, self.run.data
        model.eval()
        split, _, view = name.partition("/")
        loader = data.view_loader(int(view)) if view else data.eval_loader(split)  # type: ignore[arg-type]  # a split's name
        for raw in _heard(loader, report):
            batch = self.place(raw)
            with torch.no_grad(), self.context():
                handed, masks = self.prefix.record(batch)
            yield (raw["index"], [each if each is None else each.cpu() for each in masks],
                   [tensor.cpu() for tensor in handed])

    def measure(self) -> BatchTiming:
        """The cost of the prefix, of one training batch."""
        batch = typical_batch(self.run.data)
        placed, count = self.place(batch), len(batch["index"])
        self.run.technique.model.eval()
        with torch.no_grad(), self.context():
            seconds = fastest(lambda: self.prefix.record(placed))
            handed, masks = self.prefix.record(placed)
        here = [tensor.cpu() for tensor in handed]
        masks = [each if each is None else each.cpu() for each in masks]
        memory = activation_files.in_memory(here, masks)
        rows = torch.arange(count)
        reading = fastest(lambda: [each.to(handed[0].device) for each in memory.rows(rows, masks)])
        lengths = self.run.data.lengths("train")
        work = count if lengths is None else padded(lengths, batch["index"].tolist(), count)
        return BatchTiming(seconds / work, reading / count, stored_bytes(here, masks) / count)

    def foresee(self, splits: Sequence[SplitName]) -> Forecast:
        """What a cache would cost and save this run and those that will read it too."""
        data, epochs = self.run.data, self.run.settings.max_epochs
        whole = "test" in splits  # a trial has no evaluation after its fit
        parts = []
        for name, split in named(self.run, splits).items():
            passes = {"train": ForwardPasses(training=epochs),
                      "validation": ForwardPasses(evaluation=epochs + whole),
                      "test": ForwardPasses(evaluation=1)}[split]
            if data.views and split == "train":
                passes = ForwardPasses(training=len(range(int(name[6:]), epochs, data.views)))
            training, evaluation = _work(data, split)
            there = activation_files.path_of(self.key(name)).exists()
            parts.append(CacheFile(len(data.splits[split]), passes, training, evaluation, there))
        return foresee(self.measure(), parts, int(self.run.record.get("runs_to_come", 1)))


def _looks_up(blocks: Sequence[Block]) -> bool:
    """Whether blocks multiply nothing: they hold embeddings and norms alone."""
    leaves = (module for block in blocks for _, module in block.named_modules()
              if any(True for _ in module.parameters(recurse=False)))
    return all(isinstance(module, nn.Embedding) or is_norm(module) for module in leaves)


def _work(data: DataModule, split: SplitName) -> tuple[float, float]:
    """Of a pass in the order of training and of evaluation: padded tokens, or examples."""
    lengths, count = data.lengths(split), len(data.splits[split])
    if lengths is None:
        return float(count), float(count)
    size = data.batch_size
    training = 0.0
    if split == "train":
        drawn: Any = data.train_dataloader().batch_sampler
        training = padded(lengths, [position for batch in drawn for position in batch], size)
    return training, padded(lengths, list(data.eval_loader(split).sampler), size)


def _heard(batches: Iterable[Any], report: Report) -> Iterator[Any]:
    said = time.monotonic()
    for batch in batches:
        if time.monotonic() - said > 1:
            said = time.monotonic()
            report(ALIVE)
        yield batch
