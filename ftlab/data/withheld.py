"""Data sets of which the training examples cannot be read."""

from __future__ import annotations

from typing import Any

from ftlab.data.examples import Examples, SplitName, kind_of
from ftlab.errors import Incompatible


class Withheld(dict[SplitName, Examples]):
    """Splits by name, of which those that train are there and are refused to whoever reads them.

    Args:
        splits: of a data set.
        reason: why they cannot be read, the beginning of a sentence's second half.
        streams: whether streams are given all the same.
    """

    def __init__(self, splits: dict[SplitName, Examples], reason: str, streams: bool = False) -> None:
        super().__init__(splits)
        self.reason, self.streams = reason, streams

    def __getitem__(self, split: SplitName) -> Examples:
        self._check(split)
        return super().__getitem__(split)

    def get(self, split: SplitName, default: Any = None) -> Any:
        self._check(split)
        return super().get(split, default)

    def _check(self, split: SplitName) -> None:
        if kind_of(split) != "train" or (self.streams and split != "train"):
            return
        raise Incompatible(f"it reads training examples by itself, {self.reason}",
                           "take another technique")
