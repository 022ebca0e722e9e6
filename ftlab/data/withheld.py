"""Data sets of which the training examples cannot be read."""

from __future__ import annotations

from typing import Any, NoReturn

from ftlab.data.examples import Examples, SplitName, kind_of
from ftlab.errors import Incompatible


class Withheld(dict[SplitName, Examples]):
    """Splits by name, of which those that train are there and are refused to whoever reads them.

    Args:
        splits: of a data set.
        reason: why they cannot be read, the beginning of a sentence's second half.
    """

    def __init__(self, splits: dict[SplitName, Examples], reason: str) -> None:
        super().__init__(splits)
        self.reason = reason

    def __getitem__(self, split: SplitName) -> Examples:
        if kind_of(split) == "train":
            self._refuse()
        return super().__getitem__(split)

    def get(self, split: SplitName, default: Any = None) -> Any:
        if kind_of(split) == "train":
            self._refuse()
        return super().get(split, default)

    def _refuse(self) -> NoReturn:
        raise Incompatible(f"it reads training examples by itself, {self.reason}",
                           "take another technique")
