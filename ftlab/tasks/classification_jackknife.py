"""Metrics of decided classes as functions of counts, which is what their jackknife needs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ftlab.tasks.jackknife import Array, over_present, pseudovalues, ratio
from ftlab.tasks.metric import Records


def balanced_accuracy(hits: Array, predicted: Array, true: Array) -> Array:
    """Mean recall over the classes that occur."""
    return over_present(ratio(hits, true), true > 0)


def matthews(hits: Array, predicted: Array, true: Array) -> Array:
    """Matthews' correlation."""
    n = true.sum(axis=-1)
    both = hits.sum(axis=-1) * n - (predicted * true).sum(axis=-1)
    spread = (n**2 - (predicted**2).sum(axis=-1)) * (n**2 - (true**2).sum(axis=-1))
    return ratio(both, np.sqrt(spread))


def precision(hits: Array, predicted: Array, true: Array) -> Array:
    """Macro precision."""
    return over_present(ratio(hits, predicted), predicted + true > 0)


def recall(hits: Array, predicted: Array, true: Array) -> Array:
    """Macro recall."""
    return over_present(ratio(hits, true), predicted + true > 0)


def f1(hits: Array, predicted: Array, true: Array) -> Array:
    """Macro F1."""
    return over_present(ratio(2 * hits, predicted + true), predicted + true > 0)


Counted = Callable[[Array, Array, Array], Array]
"""Hits, predictions and targets of each class (..., C) -> metric (...)."""


def right(records: Records) -> Array:
    """1 for each example that is classified right, else 0, (N,)."""
    pairs = zip(records["target"], records["prediction"], strict=True)
    return np.array([a == b for a, b in pairs], dtype=np.float64)


def per_example(value: Counted) -> Callable[[Records], Array]:
    """Jackknife of a metric of counts: prediction records -> what each example adds, (N,)."""

    def pseudo(records: Records) -> Array:
        target, prediction = records["target"], records["prediction"]
        classes = {name: n for n, name in enumerate(sorted({*target, *prediction}))}
        one_hot = np.eye(len(classes))
        true = one_hot[[classes[name] for name in target]]
        predicted = one_hot[[classes[name] for name in prediction]]
        hits = true * right(records)[:, None]
        counts = np.stack([hits, predicted, true], axis=1)  # (N, 3, C)
        return pseudovalues(counts, lambda sums: value(*np.moveaxis(sums, -2, 0)))

    return pseudo
