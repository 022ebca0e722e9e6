"""Base class of data modules: fixed splits, stable ids, a fingerprint, loaders for one backbone."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Sampler

from ftlab.backbones.base import Backbone
from ftlab.data.batches import BlankInputs, CachedCollate, ExampleRow, SplitDataset
from ftlab.data.bucketing import Buckets
from ftlab.data.domains import with_target
from ftlab.data.examples import STREAM, SplitName, Stream, checked, streams
from ftlab.data.export_hooks import ExportHooks
from ftlab.data.image_cache import ImageCache
from ftlab.data.read_splits import ReadSplits
from ftlab.data.sampling import (
    ExactEvalSampler,
    Sampling,
    TrainSampler,
    longest_first,
    share_of_batch,
)
from ftlab.data.splits import Split, Subset
from ftlab.data.streams import StreamBatches
from ftlab.data.tables import Column
from ftlab.data.train_batches import TrainLoader
from ftlab.data.utf8 import check_encoding
from ftlab.data.variants import Variants
from ftlab.tasks.base import Task


class DataModule(LightningDataModule, ReadSplits, ExportHooks, Variants):
    """Splits, augmentation, sampling and collation of one data set, which has its task.

    Life: constructor (settings only), `load` (reads and checks everything that can be wrong),
    `connect` (a backbone's preprocessing and the run's seed), then the loaders.

    A batch is a dict: `inputs` (the network's keyword arguments), `target`, and `index`, the
    positions in the split's `Examples` (B,). Validation and test loaders give every example
    exactly once over all ranks; use `Trainer(use_distributed_sampler=False)`.

    Args:
        sources: of each split, None where it is to be carved from train.
        task: copied, because `load` fits it and a default is shared by all modules.
        batch_size: examples a batch, over all devices: each has an equal share of it, so that
            results do not depend on their number.
        split: how absent splits are carved.
        subset: what part of a split is used.
        sampling: how training examples are drawn.
        classes: raw label -> class name.
        workers: processes that load; 0 loads in the main process.
        bucketing: train on batches of like length (`ftlab.data.bucketing`), where inputs are
            padded to the longest of their batch.
        encoding: of the text in the sources, as Python names it; None for UTF-8.
        beside: streams, by name.
        columns: what else is known of each example, by name; as `ftlab.data.columns` reads it.
    """

    packs: bool = False
    """Whether a training row holds several examples, which must not see each other."""
    labelled: str = ""
    """The kind of inputs, `text`, `image` or `audio`, for which `ftlab init` takes this module where
    each has a label; their column is called so by default."""

    def __init__(self, sources: Mapping[SplitName, str | None], task: Task, batch_size: int,
                 split: Split, subset: Subset, sampling: Sampling,
                 classes: Mapping[str, str] | None, workers: int,
                 bucketing: bool = False, encoding: str | None = None,
                 beside: Mapping[str, Stream | str] | None = None,
                 columns: Mapping[str, Column] | None = None) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if workers < 0:
            raise ValueError(f"workers must be at least 0, got {workers}")
        self.sources = dict(sources)
        self.task = copy.deepcopy(task)
        self.batch_size = batch_size
        self.split = split
        self.subset = subset
        self.sampling = sampling
        self.classes = dict(classes) if classes is not None else None
        self.workers = workers
        self.bucketing = bucketing
        self.encoding = check_encoding(encoding)
        self.beside = streams(beside)
        self.columns = checked("columns", dict(columns or {}))
        if split.target is not None:
            with_target(split, self.sources, self.beside, self.columns)
        self.splits = {}
        self.notes = []
        self._seed: int | None = None
        self._fingerprint = ""

    @abstractmethod
    def connect(self, backbone: Backbone, seed: int) -> None:
        """Prepare the loaders for a backbone; `seed` fixes order, sampling and augmentation.

        Raises:
            Incompatible: the backbone reads something else.
        """

    @abstractmethod
    def dataset(self, split: SplitName, training: bool) -> SplitDataset:
        """Rows of a split for the connected backbone; `training` augments."""

    @abstractmethod
    def collate(self, training: bool) -> Callable[[Sequence[ExampleRow]], dict[str, Any]]:
        """Rows -> batch for the connected backbone."""

    def kept_images(self) -> list[ImageCache]:
        """Images of which batches can be made on a device, where they reside there."""
        return []

    def lengths(self, split: SplitName) -> Sequence[int] | None:
        """How long each example is to the connected backbone; None where all are equal."""
        return None

    @property
    def mixes(self) -> bool:
        """True where a training row may be a mixture of several examples."""
        return False

    def padded_lengths(self) -> Sequence[int] | None:
        """Lengths of the training examples, as `lengths` gives them; None where nothing is padded to its batch."""
        return None if self.packs else self.lengths("train")

    def train_dataloader(self) -> TrainLoader:
        """Augmented training examples as `sampling` draws them, in buckets, the last batch kept."""
        seed, dataset = self.seed, self._shown("train", training=True)
        lengths = self.padded_lengths() if self.bucketing and not self.sampling.plans else None
        buckets = (None if lengths is None
                   else Buckets(lengths, self.batch_size * self.update.batches))
        sampler = TrainSampler(self.sampling, self.drawn_by(), seed, *self._rank_and_world(),
                               buckets=buckets)
        make = self.update.loader(None if self.trainer is None else self.task.weight,
                                  {name: self._stream(name) for name in self.streams})
        loader = make(dataset, **self._settings(dataset, self._collate("train", True)),
                      batch_size=share_of_batch(self.batch_size, self._rank_and_world()[1]),
                      sampler=sampler)

        def begin(epoch: int) -> None:
            dataset.set_epoch(epoch)
            loader.begin(epoch)

        sampler.on_epoch = begin
        return loader

    def check_plan(self) -> None:
        """Refuse batches that a sampling cannot compose of these examples.

        Raises:
            InputError: it cannot.
        """
        if self.sampling.plans:
            self.sampling.plan(self.drawn_by(), self.batch_size, 0, 0)

    def _stream(self, name: str) -> StreamBatches:
        stream, split = self.beside[name], f"{STREAM}{name}"
        rank, world = self._rank_and_world()
        # mixtures of examples are for losses of their labels
        dataset, collate = self._shown(split, training=True), self._collate(split, True, stream.labelled)
        settings = self._settings(dataset, collate)
        size = stream.batch_size or self.batch_size
        return StreamBatches(
            dataset, lambda batches: DataLoader(dataset, batch_sampler=batches, **settings),
            size, stream.labelled, name, self.seed, rank, world)

    def _shown(self, split: SplitName, training: bool) -> SplitDataset:
        dataset = self.dataset(split, training)
        if training and self.views:
            dataset.keep(self.views)
        cached = self._name(split, training) in self.cached
        return BlankInputs(dataset) if cached and self.blank_inputs and dataset.shape else dataset

    def _name(self, split: SplitName, training: bool) -> str:
        """Under which `cached` has a split, or its first view."""
        return f"{split}/0" if training and self.views else split

    def view_loader(self, view: int, split: SplitName = "train") -> DataLoader[ExampleRow]:
        """A view of the examples that train (from 0), each example once over all ranks."""
        dataset = self._shown(split, training=True)
        dataset.set_epoch(view)
        sampler = ExactEvalSampler(self._by_length(split), *self._rank_and_world())
        return self._loader(dataset, sampler, self._collate(split, training=True))

    def eval_loader(self, split: SplitName) -> DataLoader[ExampleRow]:
        """A split (train too) without augmentation, each example once over all ranks."""
        sampler = ExactEvalSampler(self._by_length(split), *self._rank_and_world())
        return self._loader(self._shown(split, training=False), sampler,
                            self._collate(split, training=False))

    def _by_length(self, split: SplitName) -> Sequence[int]:
        lengths = self.lengths(split)
        return range(len(self.splits[split])) if lengths is None else longest_first(lengths)

    def val_dataloader(self) -> DataLoader[ExampleRow]:
        return self.eval_loader("validation")

    def test_dataloader(self) -> DataLoader[ExampleRow]:
        return self.eval_loader("test")

    @property
    def seed(self) -> int:
        """The run's seed, from `connect`."""
        if self._seed is None:
            raise RuntimeError("the loaders need `connect` with a backbone first")
        return self._seed

    def _collate(self, split: SplitName, training: bool, mixes: bool = True
                 ) -> Callable[[Sequence[ExampleRow]], dict[str, Any]]:
        collate = self.collate(training and mixes)
        if self._name(split, training) not in self.cached:
            return collate
        return CachedCollate(collate, self.cached, split, training and bool(self.views))

    def _loader(self, dataset: SplitDataset, sampler: Sampler[int],
                collate: Callable[[Sequence[ExampleRow]], dict[str, Any]]) -> DataLoader[ExampleRow]:
        size = share_of_batch(self.batch_size, self._rank_and_world()[1])
        return DataLoader(dataset, size, sampler=sampler, **self._settings(dataset, collate))

    def _settings(self, dataset: SplitDataset, collate: Callable[[Sequence[ExampleRow]], dict[str, Any]]
                  ) -> dict[str, Any]:
        # a generator of its own: the loader would draw from the global one, and change dropout
        return {"collate_fn": collate, "num_workers": 0 if dataset.names else self.workers,
                "generator": torch.Generator().manual_seed(self.seed), "pin_memory": self.pinned}

    def _rank_and_world(self) -> tuple[int, int]:
        trainer = self.trainer
        return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)
