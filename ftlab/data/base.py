"""Base class of data modules: fixed splits, stable ids, a fingerprint, loaders for one backbone."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Sampler

from ftlab.backbones.base import Backbone
from ftlab.data.batches import BlankInputs, CachedCollate, ExampleRow, SplitDataset
from ftlab.data.bucketing import Buckets
from ftlab.data.examples import SPLITS, Examples, SplitName, counted, kind_of
from ftlab.data.export_hooks import ExportHooks
from ftlab.data.faults import gathered
from ftlab.data.fingerprint import duplicates, fingerprint
from ftlab.data.image_cache import ImageCache
from ftlab.data.label_coverage import keep_known
from ftlab.data.sampling import (
    ExactEvalSampler,
    Sampling,
    TrainSampler,
    longest_first,
    share_of_batch,
)
from ftlab.data.splits import Split, Subset
from ftlab.data.utf8 import check_encoding, reading
from ftlab.data.variants import Variants
from ftlab.tasks.base import Task
from ftlab.tasks.spelling import note_spellings, one_spelling


class DataModule(LightningDataModule, ExportHooks, Variants, ABC):
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
    """

    packs: bool = False
    """Whether a training row holds several examples, which must not see each other."""
    task: Task
    splits: dict[SplitName, Examples]
    notes: list[str]
    """Sentences for the user, each shown once: texts cut, bytes replaced, images converted."""

    def __init__(self, sources: Mapping[SplitName, str | None], task: Task, batch_size: int,
                 split: Split, subset: Subset, sampling: Sampling,
                 classes: Mapping[str, str] | None, workers: int,
                 bucketing: bool = False, encoding: str | None = None) -> None:
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
        self.splits = {}
        self.notes = []
        self._seed: int | None = None
        self._fingerprint = ""

    @abstractmethod
    def read(self, split: SplitName, source: str) -> Examples:
        """All raw examples of a source; an `InputError` names the place and the mend."""

    def own_splits(self, source: str) -> Sequence[SplitName]:
        """The splits that the training source itself brings, where none are named."""
        return ()

    def read_new(self, source: str) -> Examples:
        """All examples to predict: lacking labels are None; `Examples.beside` is filled."""
        return self.read("test", source)

    def stand_ins(self, examples: Examples) -> list[Any]:
        """Labels of train for examples that have none: a batch wants some."""
        return [min(self.splits["train"].labels, key=lambda label: len(str(label)))] * len(examples)

    @abstractmethod
    def prepare(self, split: SplitName, examples: Examples) -> list[bytes]:
        """Check and normalise the inputs of a split in place; sha256 digest of each."""

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

    def padded_lengths(self) -> Sequence[int] | None:
        """Lengths of the training examples, as `lengths` gives them; None where nothing is padded to its batch."""
        return None if self.packs else self.lengths("train")

    def load(self) -> None:
        """Read, split, subset and encode, once; an `InputError` names the place and the mend."""
        if self.splits:
            return
        self.notes = []
        splits = self._read_splits()
        strata = {name: self._strata(examples) for name, examples in splits.items()}
        splits = {name: examples.take(self.subset.positions(strata[name], examples.ids, kind_of(name)))
                  for name, examples in splits.items()}
        self.task.fit(splits["train"].labels)
        for name, examples in splits.items():
            where = f"{name} split of {self.sources[name] or self.sources['train']}"
            examples.targets = [self.task.encode(label, f"{where}, {place}") for place, label
                                in zip(examples.ids, examples.labels, strict=True)]
        digests = dict(zip(splits, gathered("examples", self.prepare, splits, splits.values()),
                           strict=True))
        self._fingerprint = fingerprint(
            (name, *row) for name, examples in splits.items()
            for row in zip(examples.ids, examples.labels, digests[name], strict=True))
        self.note(*duplicates(digests.items()))
        self.splits = splits

    def _read_splits(self) -> dict[SplitName, Examples]:
        """Given splits as they are; the others carved from train."""
        train = self.sources["train"]
        assert train is not None
        holds = self.own_splits(train)
        for name in SPLITS:
            self.sources[name] = self.sources[name] or (train if name in holds else None)
        with reading(self.encoding):
            read = {name: self._renamed(self.read(name, source), source)
                     for name, source in self.sources.items() if source}
        named = [self.task.named(label, f"{self.sources[name]}, {place}")
                 for name, examples in read.items()
                 for place, label in zip(examples.ids, examples.labels, strict=True)]
        self.note(*note_spellings(chain.from_iterable(named)))
        absent = [name for name in SPLITS if name not in read]
        whole = read["train"]
        parts = self.split.carve(self._strata(whole), whole.ids, absent, where=train)
        keep_known(parts, whole.labels, self.task, where=train)
        return {name: whole.take(parts[name]) if name in parts else read[name]
                for name in (*SPLITS, *(name for name in read if name not in SPLITS))}

    def _strata(self, examples: Examples) -> list[Hashable | None]:
        return one_spelling([self.task.stratum(label) for label in examples.labels])

    def _renamed(self, examples: Examples, source: str) -> Examples:
        if self.classes is not None:
            examples.labels = [self.task.renamed(label, self.classes, f"{source}, {place}")
                               for place, label
                               in zip(examples.ids, examples.labels, strict=True)]
        return examples

    def note(self, *texts: str) -> None:
        """Add each text once to `notes`."""
        self.notes += [text for text in dict.fromkeys(texts) if text not in self.notes]

    @property
    def fingerprint(self) -> str:
        """sha256 over every row (input bytes and label) and its split; needs `load`."""
        if not self.splits:
            raise RuntimeError("the fingerprint needs `load` first")
        return self._fingerprint

    def describe(self) -> dict[str, dict[str, Any]]:
        """Examples of each split, in all and a class (needs `load`)."""
        return {name: {"examples": len(examples), "classes": counted(self._strata(examples))}
                for name, examples in self.splits.items()}

    def train_dataloader(self) -> DataLoader[ExampleRow]:
        """Augmented training examples as `sampling` draws them, in buckets, the last batch kept."""
        seed, dataset = self.seed, self._shown("train", training=True)
        strata = self._strata(self.splits["train"])
        lengths = self.padded_lengths() if self.bucketing else None
        buckets = (None if lengths is None
                   else Buckets(lengths, self.batch_size * self.update.batches))
        sampler = TrainSampler(self.sampling, strata, seed, *self._rank_and_world(),
                               on_epoch=dataset.set_epoch, buckets=buckets)
        make = self.update.loader(self.task.weight, shares=self.trainer is not None)
        return self._loader(dataset, sampler, self._collate("train", True), seed, make)

    def _shown(self, split: SplitName, training: bool) -> SplitDataset:
        dataset = self.dataset(split, training)
        if training and self.views:
            dataset.keep(self.views)
        cached = self._name(split, training) in self.cached
        return BlankInputs(dataset) if cached and self.blank_inputs and dataset.shape else dataset

    def _name(self, split: SplitName, training: bool) -> str:
        """Under which `cached` has a split, or its first view."""
        return f"{split}/0" if training and self.views else split

    def view_loader(self, view: int) -> DataLoader[ExampleRow]:
        """A view of the training examples (from 0), each example once over all ranks."""
        dataset = self._shown("train", training=True)
        dataset.set_epoch(view)
        sampler = ExactEvalSampler(self._by_length("train"), *self._rank_and_world())
        return self._loader(dataset, sampler, self._collate("train", training=True), self.seed)

    def eval_loader(self, split: SplitName) -> DataLoader[ExampleRow]:
        """A split (train too) without augmentation, each example once over all ranks."""
        sampler = ExactEvalSampler(self._by_length(split), *self._rank_and_world())
        return self._loader(self._shown(split, training=False), sampler,
                            self._collate(split, training=False), self.seed)

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

    def _collate(self, split: SplitName, training: bool) -> Callable[[Sequence[ExampleRow]], dict[str, Any]]:
        collate = self.collate(training)
        if self._name(split, training) not in self.cached:
            return collate
        return CachedCollate(collate, self.cached, split, training and bool(self.views))

    def _loader(self, dataset: SplitDataset, sampler: Sampler[int],
                collate: Callable[[Sequence[ExampleRow]], dict[str, Any]],
                seed: int, make: Callable[..., DataLoader[ExampleRow]] = DataLoader) -> DataLoader[ExampleRow]:
        # a generator of its own: the loader would draw from the global one, and change dropout
        generator = torch.Generator().manual_seed(seed)
        size = share_of_batch(self.batch_size, self._rank_and_world()[1])
        return make(dataset, size, sampler=sampler, collate_fn=collate,
                    num_workers=0 if dataset.names else self.workers, generator=generator, pin_memory=self.pinned)

    def _rank_and_world(self) -> tuple[int, int]:
        trainer = self.trainer
        return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)
