"""Reading a data set: its splits and streams as examples, before a backbone is known."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from itertools import chain
from typing import Any

from ftlab.data.clusters import clusters_of
from ftlab.data.columns import values_of
from ftlab.data.domains import apart, check_overlap, of_target
from ftlab.data.examples import (
    SPLITS,
    STREAM,
    Examples,
    SplitName,
    Stream,
    counted,
    kind_of,
)
from ftlab.data.faults import gathered
from ftlab.data.fingerprint import duplicates, fingerprint
from ftlab.data.groups import group_names, note_groups
from ftlab.data.label_coverage import keep_known
from ftlab.data.sampling import Sampling
from ftlab.data.splits import Split, Subset
from ftlab.data.tables import Column
from ftlab.data.utf8 import reading
from ftlab.errors import InputError
from ftlab.statistics.clusters import CLUSTER
from ftlab.tasks.base import Task
from ftlab.tasks.spelling import note_spellings, one_spelling


class ReadSplits(ABC):
    """The part of a data module that reads, splits and encodes; its settings are the module's."""

    sources: dict[SplitName, str | None]
    split: Split
    subset: Subset
    sampling: Sampling
    classes: Mapping[str, str] | None
    encoding: str | None
    beside: Mapping[str, Stream]
    columns: Mapping[str, Column]
    task: Task
    splits: dict[SplitName, Examples]
    notes: list[str]
    """Sentences for the user, each shown once: texts cut, bytes replaced, images converted."""
    pool: int = 0
    """Examples that the training examples are drawn from, these included; see `Split.draw`."""
    pool_fingerprint: str = ""
    """sha256 over ids and labels of all that was read, the same for every draw; empty without one."""
    _fingerprint: str
    _of_splits: dict[SplitName, str]
    _inputs: dict[SplitName, list[tuple[bytes, str]]]

    @abstractmethod
    def read(self, split: SplitName, source: str) -> Examples:
        """All raw examples of a source; an `InputError` names the place and the mend."""

    def own_splits(self, source: str) -> Sequence[SplitName]:
        """The splits that the training source itself brings, where none are named."""
        return ()

    def read_new(self, source: str, split: SplitName = "test") -> Examples:
        """All examples to predict: lacking labels are None; `Examples.columns` is filled."""
        return self.read(split, source)

    @property
    def read_by(self) -> Column | None:
        """A column of the examples in a table; None where tables have no part in it."""
        return None

    def stand_ins(self, examples: Examples) -> list[Any]:
        """Labels of train for examples that have none: a batch wants some."""
        return [min(self.splits["train"].labels, key=lambda label: len(str(label)))] * len(examples)

    @abstractmethod
    def prepare(self, split: SplitName, examples: Examples) -> list[bytes]:
        """Check and normalise the inputs of a split in place; sha256 digest of each."""

    def load(self) -> None:
        """Read, split, subset and encode, once; an `InputError` names the place and the mend."""
        if self.splits:
            return
        self.notes = []
        splits = self._read_splits()
        self.pool = len(splits["train"]) + (
            0 if self.sources["validation"] else len(splits["validation"]))
        splits = {name: self._part_of(name, examples) for name, examples in splits.items()}
        self.task.fit(splits["train"].labels)
        for name, examples in splits.items():
            if name in self.unlabelled_streams:
                continue
            where = f"{name} split of {self.sources[name] or self.sources['train']}"
            examples.targets = [self.task.encode(label, f"{where}, {place}") for place, label
                                in zip(examples.ids, examples.labels, strict=True)]
        digests = dict(zip(splits, gathered("examples", self.prepare, splits, splits.values()),
                           strict=True))
        rows = {name: [(name, *row) for row in zip(examples.ids, examples.labels, digests[name], strict=True)]
                for name, examples in splits.items()}
        values = ((column, place, value, b"") for examples in splits.values()
                  for column in self.columns
                  for place, value in zip(examples.ids, examples.columns[column], strict=True))
        self._fingerprint = fingerprint(chain(chain.from_iterable(rows.values()), values))
        self._of_splits = {name: fingerprint(part) for name, part in rows.items()}
        self._inputs = {name: list(zip(digests[name], splits[name].ids, strict=True)) for name in splits}
        learned = [name for name in splits if kind_of(name) == "train"]
        self.note(*duplicates({name: digests[name] for name in learned},
                              {name: digests[name] for name in splits if name not in learned}))
        for name in splits.keys() - {*learned}:
            named = [splits[name].columns[CLUSTER]] if CLUSTER in self.columns else []
            splits[name].clusters = clusters_of(digests[name], *named)
        self._drawn_by(splits["train"])
        self.note(*note_groups(splits))
        if self.subset.shots is not None and len(splits["validation"]) > len(splits["train"]):
            self.note(f"{len(splits['validation']):,} validation examples choose for "
                      f"{len(splits['train']):,} that train, so that the data are not few: "
                      "subset: {splits: [train, validation]} takes as many of each class in both")
        self.task.groups = group_names(splits)
        self.splits = splits
        for examples in (splits[name] for name in self.unlabelled_streams):  # rows want some
            examples.labels = self.stand_ins(examples)
            examples.targets = [self.task.encode(label, "") for label in examples.labels]

    def _read_splits(self) -> dict[SplitName, Examples]:
        """Given splits as they are; the others carved from train."""
        train = self.sources["train"]
        assert train is not None
        holds = self.own_splits(train)
        for name in SPLITS:
            self.sources[name] = self.sources[name] or (train if name in holds else None)
        with reading(self.encoding):
            read = {name: self._read(name, source)
                    for name, source in self.sources.items() if source}
        named = [self.task.named(label, f"{self.sources[name]}, {place}")
                 for name, examples in read.items() if name not in self.unlabelled_streams
                 for place, label in zip(examples.ids, examples.labels, strict=True)]
        self.note(*note_spellings(chain.from_iterable(named)))
        if self.split.draw is not None:
            self.pool_fingerprint = fingerprint(
                (name, *row, b"") for name, examples in read.items()
                for row in zip(examples.ids, examples.labels, strict=True))
        if self.split.target is None:
            return self._carved(read, train)
        own, others = apart(read, self.split, train)
        made, target = self._carved(own, train), self._carved(others, train)
        check_overlap(self.split, self._strata(made["train"]), self._strata(target["train"]), train)
        return made | of_target(target["train"], target["test"])

    def _carved(self, read: Mapping[SplitName, Examples], where: str) -> dict[SplitName, Examples]:
        """Splits as they were read, those that were not carved from train."""
        absent = [name for name in SPLITS if name not in read]
        whole = read["train"]
        parts = self.split.carve(self._strata(whole), whole.ids, absent, where=where)
        keep_known(parts, whole.labels, self.task, where=where)
        if redrawn := self.split.redrawn(parts, self._strata(whole), whole.ids):
            keep_known(redrawn, whole.labels, self.task, where=where)
            parts |= redrawn
        return {name: whole.take(parts[name]) if name in parts else read[name]
                for name in (*SPLITS, *(name for name in read if name not in SPLITS))}

    def _part_of(self, split: SplitName, examples: Examples) -> Examples:
        """The subset's part of a split; a stream is whole."""
        if split.startswith(STREAM):
            return examples
        return examples.take(self.subset.positions(self._strata(examples), examples.ids,
                                                   kind_of(split), self.split.draw))

    def _read(self, split: SplitName, source: str) -> Examples:
        if split not in self.unlabelled_streams:
            examples = self._renamed(self.read(split, source), source)
        else:
            examples = self.read_new(source)
            self.note(*examples.notes)
            examples.labels = [None] * len(examples)
            if not len(examples):
                raise InputError(f"{source} has no examples", "give a file or folder with some")
        examples.columns = {name: values_of(source, split, column, examples.ids, self.read_by)
                            for name, column in self.columns.items()}
        return examples

    def _strata(self, examples: Examples) -> list[Hashable | None]:
        return one_spelling([self.task.stratum(label) for label in examples.labels])

    def _renamed(self, examples: Examples, source: str) -> Examples:
        if self.classes is not None:
            examples.labels = [self.task.renamed(label, self.classes, f"{source}, {place}")
                               for place, label
                               in zip(examples.ids, examples.labels, strict=True)]
        return examples

    def drawn_by(self) -> Sequence[Hashable | None]:
        """The class of each training example, or the value of a column, that `sampling` draws by."""
        return self._drawn_by(self.splits["train"])

    def _drawn_by(self, train: Examples) -> Sequence[Hashable | None]:
        return self.sampling.strata(self._strata(train), train.columns)

    def still(self, random: bool) -> list[SplitName]:
        """The splits whose inputs are the same each time: all but what trains, where that is random."""
        return [name for name in self.splits if not (random and kind_of(name) == "train")]

    @property
    def measured(self) -> list[SplitName]:
        """The splits that a finished model is measured on."""
        return [name for name in self.splits if kind_of(name) != "train"]

    def note(self, *texts: str) -> None:
        """Add each text once to `notes`."""
        self.notes += [text for text in dict.fromkeys(texts) if text not in self.notes]

    @property
    def fingerprint(self) -> str:
        """sha256 over every row (input bytes and label) and its split; needs `load`."""
        if not self.splits:
            raise RuntimeError("the fingerprint needs `load` first")
        return self._fingerprint

    def fingerprint_of(self, split: SplitName) -> str:
        """sha256 over the rows of a split alone; needs `load`."""
        return self._of_splits[split]

    def inputs(self, *kinds: str) -> list[tuple[bytes, str, str]]:
        """sha256, source and id of the inputs in all splits of these kinds (`kind_of`); needs `load`."""
        return [(digest, self.sources.get(name) or self.sources["train"] or "", place)
                for name, rows in self._inputs.items() if kind_of(name) in kinds
                for digest, place in rows]

    @property
    def training_share(self) -> float:
        """Share of the pool that trains (needs `load`): two draws have so much in common."""
        return len(self.splits["train"]) / self.pool

    def describe(self) -> dict[str, dict[str, Any]]:
        """Examples of each split, in all and a class (needs `load`)."""
        return {name: {"examples": len(examples), "classes":
                       {} if name in self.unlabelled_streams else counted(self._strata(examples))}
                for name, examples in self.splits.items()}

    @property
    def unlabelled_streams(self) -> set[SplitName]:
        """The streams whose labels nothing reads."""
        return {f"{STREAM}{name}" for name, stream in self.beside.items() if not stream.labelled}
