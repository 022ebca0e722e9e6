"""The examples of a split, before a backbone reads them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SplitName = str
"""`train`, `validation`, `test`, or `test.NAME` of a named test set."""
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
NAMED = "test."
"""Begins the name of a named test set as a split, and of its metrics."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def sources(train: str | None, validation: str | None, test: str | None,
            tests: Mapping[str, str] | None) -> dict[SplitName, str | None]:
    """The source of each split, None where it is to be carved from train.

    Args:
        train: of the training examples.
        validation: or None.
        test: or None.
        tests: of further test sets, by name.

    Raises:
        ValueError: a name that no file and no metric could have.
    """
    for name in tests or {}:
        if not _NAME.fullmatch(name):
            raise ValueError(f"tests: {name!r} is not a name: take letters of a to z, digits, "
                             "'.', '_' and '-', a letter or digit first")
    named: dict[SplitName, str | None] = {
        f"{NAMED}{name}": source for name, source in (tests or {}).items()}
    return {"train": train, "validation": validation, "test": test} | named


def kind_of(split: SplitName) -> SplitName:
    """`test` for a named test set, every other split as it is."""
    return split.partition(".")[0]


@dataclass
class Examples:
    """The examples of one split.

    Attributes:
        ids: stable names, the same whatever the run's seed.
        inputs: raw texts, image paths, ...
        labels: raw labels.
        targets: labels as the task encodes them.
        beside: of examples to predict, what their source says of each, by column.
        notes: on the source of examples to predict, for users.
    """

    ids: list[str]
    inputs: list[Any]
    labels: list[Any]
    targets: list[Any] = field(default_factory=list)
    beside: dict[str, list[Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, positions: Sequence[int]) -> Examples:
        def chosen(column: list[Any]) -> list[Any]:
            return [column[i] for i in positions] if column else []

        return Examples(chosen(self.ids), chosen(self.inputs), chosen(self.labels),
                        chosen(self.targets),
                        {name: chosen(column) for name, column in self.beside.items()})


def counted(strata: Sequence[Hashable | None]) -> dict[str, int]:
    """Examples per class, by its name; of what has none nothing is counted."""
    return dict(sorted(Counter(str(name) for name in strata if name is not None).items()))
