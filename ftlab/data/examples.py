"""The examples of a split, before a backbone reads them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SplitName = str
"""`train`, `validation`, `test`, `test.NAME` of a named test set, or `beside.NAME` of a stream."""
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
NAMED = "test."
"""Begins the name of a named test set as a split, and of its metrics."""
STREAM = "beside."
"""Begins the name of a stream as a split: examples that training batches bring along."""
COLUMN = "column."
"""Begins the name of a column of the data set in prediction records."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,23}")


@dataclass(frozen=True)
class Stream:
    """Examples beside the training examples: each training batch brings some of them along.

    They have the same columns, preprocessing and augmentation. A technique that reads a stream
    says so by its name; with all others it is left out.

    Args:
        source: as of the training examples; without `labelled` it may lack labels.
        labelled: whether its labels are read. Otherwise no batch has any.
        batch_size: examples in a batch, over all devices; null for as many as the data set's.
    """

    source: str
    labelled: bool = False
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")


def checked(argument: str, named: Any) -> Any:
    """A mapping, if files and metrics could have its names.

    Raises:
        ValueError: with the argument and the name.
    """
    for name in named:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{argument}: {name!r} is not a name: take letters of a to z, digits, "
                             "'.', '_' and '-', 24 at most, a letter or digit first")
    return named


def streams(beside: Mapping[str, Stream | str] | None) -> dict[str, Stream]:
    """Streams by name, of which some are written as their source alone."""
    return {name: Stream(stream) if isinstance(stream, str) else stream
            for name, stream in (beside or {}).items()}


def sources(train: str | None, validation: str | None, test: str | None,
            tests: Mapping[str, str] | None, beside: Mapping[str, Stream | str] | None = None
            ) -> dict[SplitName, str | None]:
    """The source of each split, None where it is to be carved from train.

    Args:
        train: of the training examples.
        validation: or None.
        test: or None.
        tests: of further test sets, by name.
        beside: streams by name.

    Raises:
        ValueError: a name that no file and no metric could have.
    """
    checked("tests", tests or {})
    checked("beside", beside or {})
    named: dict[SplitName, str | None] = {
        f"{NAMED}{name}": source for name, source in (tests or {}).items()}
    named |= {f"{STREAM}{name}": stream.source for name, stream in streams(beside).items()}
    return {"train": train, "validation": validation, "test": test} | named


def kind_of(split: SplitName) -> SplitName:
    """`test` for a named test set, `train` for a stream, every other split as it is."""
    return "train" if split.startswith(STREAM) else split.partition(".")[0]


@dataclass
class Examples:
    """The examples of one split.

    Attributes:
        ids: stable names, the same whatever the run's seed.
        inputs: raw texts, image paths, ...
        labels: raw labels.
        targets: labels as the task encodes them.
        columns: what the source says of each beside its label, by name: of examples to predict
            all of it, of others what `columns` of the data module names.
        notes: on the source of examples to predict, for users.
        clusters: number of each one's cluster, of splits that are measured: examples that belong
            together by the column `cluster`, by their inputs or as parts of one text.
    """

    ids: list[str]
    inputs: list[Any]
    labels: list[Any]
    targets: list[Any] = field(default_factory=list)
    columns: dict[str, list[Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    clusters: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, positions: Sequence[int]) -> Examples:
        def chosen(column: list[Any]) -> list[Any]:
            return [column[i] for i in positions] if column else []

        return Examples(chosen(self.ids), chosen(self.inputs), chosen(self.labels),
                        chosen(self.targets),
                        {name: chosen(column) for name, column in self.columns.items()},
                        clusters=chosen(self.clusters))


def counted(strata: Sequence[Hashable | None]) -> dict[str, int]:
    """Examples per class, by its name; of what has none nothing is counted."""
    return dict(sorted(Counter(str(name) for name in strata if name is not None).items()))
