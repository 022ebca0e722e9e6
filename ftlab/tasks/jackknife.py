"""Contribution of each example to a metric that is a function of sums over examples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def pseudovalues(counts: Array, value: Callable[[Array], Array]) -> Array:
    """Jackknife pseudovalues (Quenouille 1956, Tukey 1958) of `value(counts.sum(0))`, (N,).

    N examples have them so that their mean is the metric, up to its bias, and their spread says
    how much the metric depends on which examples were drawn. Of a mean they are the examples' own
    numbers.

    Args:
        counts: what each example adds, (N, K).
        value: sums (..., K) -> metric (...).
    """
    n, total = len(counts), counts.sum(axis=0)
    return n * value(total) - (n - 1) * value(total - counts)


def ratio(part: Array, whole: Array) -> Array:
    """Part by whole, 0 where the whole is."""
    return np.divide(part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=whole > 0)


def over_present(values: Array, present: NDArray[np.bool_]) -> Array:
    """Mean over the last axis of what is present there."""
    return ratio((values * present).sum(axis=-1), present.sum(axis=-1).astype(np.float64))
