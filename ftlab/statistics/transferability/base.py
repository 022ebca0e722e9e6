"""The contract of transferability scores: pure functions of what a backbone says of examples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ftlab.statistics.seed_summary import UNBOUNDED, Range

Array = NDArray[np.float64]
Codes = NDArray[np.int64]
Reads = Literal["features", "probabilities"]
FEWEST = 2  # classes, without which there is nothing to tell apart


class Score(ABC):
    """A number that ranks backbones for a data set before anything trains; more is better.

    One file each, found by walking the room.
    """

    name: ClassVar[str]
    """The heading of its column."""
    reads: ClassVar[Reads] = "features"
    """The rows that it takes: a backbone's features of each example, or the probabilities that the
    checkpoint's own classifier gives to its own classes."""
    turns: ClassVar[bool] = True
    """Whether rotated features give the same."""

    def __call__(self, rows: ArrayLike, labels: ArrayLike) -> float:
        """The score of training examples.

        Args:
            rows: as `reads` says, (N, D), in any floating type.
            labels: class of each example, (N,), in any spelling.

        Raises:
            ValueError: rows that are not finite, or fewer than two classes.
        """
        return float(self.measure(*checked(rows, labels)))

    @abstractmethod
    def measure(self, rows: Array, labels: Codes) -> float:
        """The score of checked examples.

        Args:
            rows: finite, (N, D).
            labels: from 0 to C - 1, each of them there, (N,).
        """

    def limits(self, width: int, classes: int) -> Range:
        """The least and the greatest score.

        Args:
            width: of a row, D.
            classes: C.
        """
        return UNBOUNDED


def checked(rows: ArrayLike, labels: ArrayLike) -> tuple[Array, Codes]:
    """Rows in float64, and labels as positions among the sorted classes.

    Raises:
        ValueError: rows that are no table or not finite, or fewer than two classes.
    """
    table, names = np.asarray(rows, dtype=np.float64), np.asarray(labels)
    if table.ndim != 2 or names.shape != table.shape[:1] or not table.shape[1]:
        raise ValueError(f"rows (N, D) and labels (N,), got {table.shape} and {names.shape}")
    if broken := int((~np.isfinite(table)).any(axis=1).sum()):
        raise ValueError(f"{broken} of {len(table)} examples have numbers that are not finite")
    classes, codes = np.unique(names, return_inverse=True)
    if len(classes) < FEWEST:
        raise ValueError(f"all {len(table)} examples are of one class, and scores compare classes")
    return table, codes.astype(np.int64)


def centred(rows: Array) -> Array:
    """Rows less their mean."""
    return rows - rows.mean(axis=0)


def spectrum(rows: Array) -> tuple[Array, Array]:
    """Left singular vectors (N, K) and singular values (K,), but for those that are rounding."""
    left, values, _ = np.linalg.svd(rows, full_matrices=False)
    kept = values > values[:1].max(initial=0.0) * max(rows.shape) * np.finfo(np.float64).eps
    return left[:, kept], values[kept]


def class_sums(rows: Array, labels: Codes) -> tuple[Array, Codes]:
    """Sums (C, D) and numbers (C,) of each class's rows."""
    counts = np.bincount(labels)
    order = np.argsort(labels, kind="stable")
    sums: Array = np.add.reduceat(rows[order], np.cumsum(counts) - counts)
    return sums, counts
