"""Curves of scores over the number of examples: area, and the number that a score needs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def area(counts: Sequence[float], scores: Sequence[float]) -> float:
    """Mean of a curve over the logarithm of its counts, by the trapezoidal rule.

    Unlike a mean over the points it does not depend on how they lie.

    Args:
        counts: above 0, rising, two or more.
        scores: at each.
    """
    x, y = np.log(counts), np.asarray(scores, dtype=float)
    return float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum() / (x[-1] - x[0]))


def needed(counts: Sequence[float], scores: Sequence[float], target: float,
           higher_is_better: bool = True) -> float:
    """Smallest count at which a curve reaches a score, between points linear in the logarithm.

    Args:
        counts: above 0, rising.
        scores: at each.
        target: the score.
        higher_is_better: the score's direction.

    Returns:
        The first count where even that reaches it (fewer may do), infinity where none does.
    """
    sign = 1 if higher_is_better else -1
    x, y, goal = np.log(counts), sign * np.asarray(scores, dtype=float), sign * target
    reached = np.flatnonzero(y >= goal)
    if not len(reached):
        return math.inf
    first = int(reached[0])
    if first == 0 or y[first] == goal:
        return float(counts[first])
    share = (goal - y[first - 1]) / (y[first] - y[first - 1])
    return float(np.exp(x[first - 1] + share * (x[first] - x[first - 1])))
