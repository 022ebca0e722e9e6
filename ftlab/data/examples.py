"""The examples of a split, before a backbone reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)


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
