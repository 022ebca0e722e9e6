"""The frozen prefix of a run: its key, its rows, and what caching them costs and saves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import transformers
from torch import nn

from ftlab.backbones.block import Block
from ftlab.backbones.forward_trace import NotReplayable
from ftlab.backbones.prefix_replay import FrozenPrefix, leading
from ftlab.data.base import DataModule
from ftlab.data.examples import STREAM, SplitName, kind_of
from ftlab.techniques.base import is_norm
from ftlab.training.costs import typical_batch
from ftlab.training.evaluate import Placing
from ftlab.training.event_log import Report, heard
from ftlab.training.precision import Context
from ftlab.training.run import Run
from ftlab.training.shortcuts.prefix_cache import activation_files
from ftlab.training.shortcuts.prefix_cache.cache_estimate import (
    BatchTiming,
    CacheFile,
    Forecast,
    ForwardPasses,
    fastest,
    foresee,
    padded,
    stored_bytes,
)

ORDER = ("batch_size", "sampling", "workers", "bucketing")
"""Settings of a data module that say nothing of what a row is."""


def why_not(run: Run) -> str:
    """The reason against a cache in the settings of a run; empty for none."""
    if run.plain:
        return "--plain"
    if not run.record:
        return "the run has no specification to know it by"
    if run.technique.whole_passes:
        return f"{type(run.technique).__name__} reads or changes what frozen blocks compute"
    augment = getattr(run.data, "augment", None)
    trains = run.technique.trains  # or it reads the examples as they are
    if trains and augment is not None and not run.data.views:
        return "augmentation changes the examples every epoch (augment: {views: 4} would keep four)"
    if trains and augment is not None and getattr(augment, "mix", "none") != "none":
        return "mixtures of a batch's examples are new every time"
    if run.data.packs:
        return "packing puts several texts into a row"
    if run.settings.strategy == "fsdp":
        return "its weights are shared out"
    return ""


@dataclass
class PrefixSource:
    """Computes the frozen prefix of a run.

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
        """The frozen prefix of the adapted model.

        Raises:
            NotReplayable: there is none that could be played back.
        """
        model = self.run.technique.model
        if _looks_up(model.blocks[: leading(model)]):
            raise NotReplayable("only embeddings are frozen, which are as fast to look up as to read")
        sample = self.place(next(iter(self.run.data.val_dataloader())))
        with self.context():
            return FrozenPrefix(model, sample)

    @cached_property
    def _parts(self) -> dict[str, Any]:
        model, record = self.run.technique.model, self.run.record
        frozen = model.blocks[: self.prefix.blocks]
        return {
            "places": self.prefix.places,
            "weights": {name: value for name, value in self.weights.items()
                        if any(block.holds(name) for block in frozen)},
            "network": type(model.network).__name__,
            "backbone": record["backbone"],
            "data": {name: value for name, value in record["data"]["init_args"].items()
                     if name not in (*ORDER, *(["split"] if self._drawn else []))},
            "precision": self.run.settings.precision,
            "device": next(model.parameters()).device.type,
            "versions": [torch.__version__, transformers.__version__],
        }

    def key(self, name: str) -> str:
        """The key of the file of a split or view.

        Where seeds draw the split a test set is known by its own rows, and by the classes: all
        draws have it in common, and it is computed once.
        """
        data, rows = self.run.data, self.run.data.fingerprint
        if self._drawn and kind_of(name) == "test":
            rows = f"{data.fingerprint_of(name)} {sorted(data.describe()['train']['classes'])}"
        return activation_files.key_of({**self._parts, "rows": rows, "split": name})

    @property
    def _drawn(self) -> bool:
        return self.run.data.split.draw is not None

    def record(self, name: str, report: Report) -> activation_files.Recorded:
        """The rows that the prefix gives for each example, batch by batch, on the CPU."""
        model, data = self.run.technique.model, self.run.data
        model.eval()
        split, _, view = name.partition("/")
        loader = data.view_loader(int(view), split) if view else data.eval_loader(split)
        for raw in heard(loader, report):
            batch = self.place(raw)
            with torch.no_grad(), self.context():
                given, masks = self.prefix.record(batch)
            yield (raw["index"], [mask if mask is None else mask.cpu() for mask in masks],
                   [tensor.cpu() for tensor in given])

    def measure(self) -> BatchTiming:
        """The cost of the prefix, of one training batch."""
        batch = typical_batch(self.run.data)
        placed, count = self.place(batch), len(batch["index"])
        self.run.technique.model.eval()
        with torch.no_grad(), self.context():
            seconds = fastest(lambda: self.prefix.record(placed))
            given, masks = self.prefix.record(placed)
        on_cpu = [tensor.cpu() for tensor in given]
        masks = [mask if mask is None else mask.cpu() for mask in masks]
        memory = activation_files.in_memory(on_cpu, masks)
        rows = torch.arange(count)
        reading = fastest(lambda: [row.to(given[0].device) for row in memory.rows(rows, masks)])
        lengths = self.run.data.lengths("train")
        work = count if lengths is None else padded(lengths, batch["index"].tolist(), count)
        return BatchTiming(seconds / work, reading / count, stored_bytes(on_cpu, masks) / count)

    def names(self, splits: Sequence[SplitName]) -> dict[str, SplitName]:
        """The names of the rows that the run reads (see `DataModule.cached_names`)."""
        views = self.run.settings.max_epochs if self.run.technique.trains else 0
        return self.run.data.cached_names(splits, views)

    def foresee(self, splits: Sequence[SplitName]) -> Forecast:
        """The cost and saving of a cache, for this run and those that will read it too."""
        data, epochs = self.run.data, self.run.epochs
        whole = "test" in splits  # a trial has no evaluation after its fit
        parts = []
        for name, split in self.names(splits).items():
            passes = {"train": ForwardPasses(training=epochs, evaluation=not epochs),
                      "validation": ForwardPasses(evaluation=max(epochs, 1) + whole),
                      "test": ForwardPasses(evaluation=1)}[kind_of(split)]
            if "/" in name and epochs:
                passes = ForwardPasses(training=len(range(int(name.rpartition("/")[2]), epochs, data.views or 1)))
            training, evaluation = _work(data, split)
            there = activation_files.path_of(self.key(name)).exists()
            parts.append(CacheFile(len(data.splits[split]), passes, training, evaluation, there))
        return foresee(self.measure(), parts, int(self.run.record.get("runs_to_come", 1)))


def _looks_up(blocks: Sequence[Block]) -> bool:
    """Return whether blocks multiply nothing: they hold embeddings and norms alone."""
    leaves = (module for block in blocks for _, module in block.named_modules()
              if any(True for _ in module.parameters(recurse=False)))
    return all(isinstance(module, nn.Embedding) or is_norm(module) for module in leaves)


def _work(data: DataModule, split: SplitName) -> tuple[float, float]:
    """Work of a pass in the order of training, and of evaluation: padded tokens, or examples."""
    lengths, count = data.lengths(split), len(data.splits[split])
    if lengths is None:
        return float(count), float(count)
    size = data.batch_size
    training = 0.0
    if split.startswith(STREAM):  # as much of it as an epoch reads
        steps, stream = len(data.train_dataloader()), data.beside[split.removeprefix(STREAM)]
        part = steps * (stream.batch_size or size) / count
        return part * padded(lengths, list(range(count)), size), padded(
            lengths, list(data.eval_loader(split).sampler), size)
    if split == "train":
        drawn: Any = data.train_dataloader().batch_sampler
        training = padded(lengths, [position for batch in drawn for position in batch], size)
    return training, padded(lengths, list(data.eval_loader(split).sampler), size)
