"""Seeds that failed to learn beside others that did, and how often that may be where none was seen."""

from __future__ import annotations

from collections.abc import Sequence

FAR = 0.1
"""Least distance to the best seed, ten points of a share: a technique that hardly learns anything
has seeds on both sides of half of its gain, and none of them has collapsed."""


def collapsed(values: Sequence[float], guessing: float, higher_is_better: bool) -> int:
    """Count the seeds that keep less than half of what the best seed gains over guessing.

    Against the best and not the median, since half of the seeds may collapse.

    Args:
        values: scores of a cell, one per seed.
        guessing: score of one who learned nothing, in the same unit.
        higher_is_better: of the scores.
    """
    sign = 1 if higher_is_better else -1
    gains = [sign * (value - guessing) for value in values]
    best = max(gains, default=0.0)
    return sum(gain < best / 2 and best - gain >= FAR for gain in gains)


def not_excluded(seeds: int, level: float = 0.05) -> float:
    """The largest rate of collapse with which so many seeds show none in `level` of all studies.

    1 - level^(1/n): Clopper and Pearson's upper end of none among n, one-sided.
    """
    return float(1 - level ** (1 / seeds))
