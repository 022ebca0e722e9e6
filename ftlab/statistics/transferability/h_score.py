from __future__ import annotations

from ftlab.statistics.seed_summary import Range
from ftlab.statistics.transferability.base import (
    Array,
    Codes,
    Score,
    centred,
    class_sums,
    spectrum,
)


class RegularisedHScore(Score):
    """Variance between classes in units of all variance, with Ledoit and Wolf's covariance.

    Ibrahim, Ponomareva, Mazumder (2021), https://arxiv.org/abs/2110.06893; Ledoit, Wolf (2004),
    https://doi.org/10.1016/S0047-259X(03)00096-4. Take this one: with fewer examples than features
    the plain score says how many classes there are, and nothing of the backbone.
    """

    name = "H-score"

    def measure(self, rows: Array, labels: Codes) -> float:
        rows = centred(rows)
        left, values = spectrum(rows)
        count, width = rows.shape
        shrinkage, mean = ledoit_wolf(rows, values)
        variances = values**2 / count
        shrunk = (1 - shrinkage) * variances + shrinkage * mean
        # numpy's covariance of N class means, as the paper's code has it, divides by N - 1
        between = variances * _explained(left, labels) * count / (count - 1)
        return float((1 - shrinkage) * (between / shrunk).sum()) if width else 0.0

    def limits(self, width: int, classes: int) -> Range:
        return 0.0, float(min(width, classes - 1))


class HScore(Score):
    """Variance between classes in units of all variance: trace of cov(features)^+ cov(class means).

    Bao, Li, Huang, Zhang, Zheng, Zamir, Guibas (2019), https://arxiv.org/abs/2212.10082. It is
    C - 1 for any features that have as many dimensions as there are examples.
    """

    name = "H-score, plain"

    def measure(self, rows: Array, labels: Codes) -> float:
        left, _ = spectrum(centred(rows))
        return float(_explained(left, labels).sum())

    def limits(self, width: int, classes: int) -> Range:
        return 0.0, float(min(width, classes - 1))


def _explained(left: Array, labels: Codes) -> Array:
    """The share of each direction's variance that lies between classes (K,)."""
    sums, counts = class_sums(left, labels)
    shares: Array = (sums**2 / counts[:, None]).sum(axis=0)
    return shares


def ledoit_wolf(rows: Array, values: Array) -> tuple[float, float]:
    """The shrinkage of a covariance towards a multiple of the identity, and that multiple.

    Args:
        rows: centred (N, D).
        values: their singular values.
    """
    count, width = rows.shape
    mean = float((values**2).sum()) / count / width
    squared = float((values**4).sum()) / count**2  # of the covariance's entries, summed
    spread = (float(((rows**2).sum(axis=1) ** 2).sum()) / count - squared) / count
    distance = squared - width * mean**2
    if distance <= 0 or spread <= 0:
        return 0.0 if spread <= 0 else 1.0, mean
    return min(spread, distance) / distance, mean
