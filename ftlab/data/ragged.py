"""Lists of integers of any length, end to end in one tensor, and rows that are made when asked for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, TypeVar, overload

import torch
from torch import Tensor

T = TypeVar("T")


class LazySequence(Sequence[T]):
    """A sequence that makes an item each time it is asked for it, and keeps none."""

    @abstractmethod
    def row(self, index: int) -> T:
        """The item at a place from 0 to the last."""

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> list[T]: ...

    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self.row(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self.row(index % len(self))


class Ragged(LazySequence[list[int]]):
    """Lists of integers in two tensors, which may be mapped from a file.

    Args:
        values: of all lists, one after another (N,).
        ends: where each list ends in `values` (B,).
    """

    def __init__(self, values: Tensor, ends: Tensor) -> None:
        self.values = values
        self.bounds: list[int] = [0, *ends.tolist()]

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def row(self, index: int) -> list[int]:
        values: list[int] = self.values[self.bounds[index]:self.bounds[index + 1]].tolist()
        return values

    def __iter__(self) -> Iterator[list[int]]:
        """All of them, in a fifth of the time that asking for each takes."""
        values = self.values.tolist()
        return (values[begin:end] for begin, end in pairwise(self.bounds))


def lengths(rows: Sequence[Sequence[int]]) -> list[int]:
    """How long each list is, without a look at what is in it."""
    if isinstance(rows, Ragged):
        return torch.tensor(rows.bounds).diff().tolist()
    return [len(row) for row in rows]


class TextTargets(LazySequence[dict[str, Any]]):
    """Targets of texts to write: ids as `labels`, and the `text`, which is whole.

    Args:
        ids: of each text.
        texts: as many.
        longest: ids of a text that are learned; None for all.
        learned: of each text, which tokens of its prompt and itself are, as 1 and 0; None where
            all of the text are and none of the prompt.
    """

    def __init__(self, ids: Sequence[Sequence[int]], texts: Sequence[str],
                 longest: int | None = None,
                 learned: Sequence[Sequence[int]] | None = None) -> None:
        self.ids, self.texts, self.longest, self.learned = ids, texts, longest, learned

    def __len__(self) -> int:
        return len(self.texts)

    def row(self, index: int) -> dict[str, Any]:
        row = {"labels": self.ids[index][:self.longest], "text": self.texts[index]}
        return row if self.learned is None else {**row, "learned": self.learned[index]}
