"""Metrics of decided classes as functions of counts, which is what their jackknife needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ftlab.tasks.jackknife import Array, over_present, pseudovalues, ratio


def _accuracy(hits: Array, said: Array, true: Array) -> Array:
    return ratio(hits.sum(axis=-1), true.sum(axis=-1))


def _balanced(hits: Array, said: Array, true: Array) -> Array:
    return over_present(ratio(hits, true), true > 0)


def _matthews(hits: Array, said: Array, true: Array) -> Array:
    n = true.sum(axis=-1)
    both = hits.sum(axis=-1) * n - (said * true).sum(axis=-1)
    spread = (n**2 - (said**2).sum(axis=-1)) * (n**2 - (true**2).sum(axis=-1))
    return ratio(both, np.sqrt(spread))


def _precision(hits: Array, said: Array, true: Array) -> Array:
    return over_present(ratio(hits, said), said + true > 0)


def _recall(hits: Array, said: Array, true: Array) -> Array:
    return over_present(ratio(hits, true), said + true > 0)


def _f1(hits: Array, said: Array, true: Array) -> Array:
    return over_present(ratio(2 * hits, said + true), said + true > 0)


_METRICS: dict[str, Callable[[Array, Array, Array], Array]] = {
    "accuracy": _accuracy, "balanced_accuracy": _balanced, "matthews": _matthews,
    "precision_macro": _precision, "recall_macro": _recall, "f1_macro": _f1,
}


def contributions(metric: str, target: Sequence[str], prediction: Sequence[str]) -> Array | None:
    """What each example adds to one of the metrics above, (N,); None for another metric."""
    if metric not in _METRICS:
        return None
    right = np.array([a == b for a, b in zip(target, prediction, strict=True)], dtype=np.float64)
    if metric == "accuracy":  # a mean needs no counts a class
        return right
    classes = {name: n for n, name in enumerate(sorted({*target, *prediction}))}
    one = np.eye(len(classes))
    true = one[[classes[name] for name in target]]
    said = one[[classes[name] for name in prediction]]
    counts = np.stack([true * right[:, None], said, true], axis=1)  # (N, 3, C)
    value = _METRICS[metric]
    return pseudovalues(counts, lambda sums: value(*np.moveaxis(sums, -2, 0)))
