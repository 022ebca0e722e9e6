from __future__ import annotations

import numpy as np

from ftlab.statistics.seed_summary import Range
from ftlab.statistics.transferability.base import Array, Codes, Score, class_sums

FLOOR = 1e-4
"""Variance that a feature has at least, as in the authors' code: one that is constant within a
class would keep it from overlapping with any other."""


class GBCSpherical(Score):
    """Overlap of the classes as spherical normal distributions, negative: 0 for none.

    Pándy, Agostinelli, Uijlings, Ferrari, Mensink (2022), https://arxiv.org/abs/2111.12780: minus
    the Bhattacharyya coefficients of all ordered pairs of classes. The authors' code counts the
    variances' part once instead of for each of the D features; here it is as in the paper. A class
    of one example has no variance of its own: it takes the mean of the others'.
    """

    name = "GBC"

    def measure(self, rows: Array, labels: Codes) -> float:
        means, variances = _moments(rows, labels)
        return _overlap(means, np.broadcast_to(variances.mean(axis=1, keepdims=True), means.shape))

    def limits(self, width: int, classes: int) -> Range:
        return -float(classes * (classes - 1)), 0.0


class GBCDiagonal(Score):
    """Overlap of the classes as normal distributions without correlations, negative: 0 for none.

    Pándy, Agostinelli, Uijlings, Ferrari, Mensink (2022), https://arxiv.org/abs/2111.12780.
    """

    name = "GBC, diagonal"
    turns = False

    def measure(self, rows: Array, labels: Codes) -> float:
        return _overlap(*_moments(rows, labels))

    def limits(self, width: int, classes: int) -> Range:
        return -float(classes * (classes - 1)), 0.0


def _moments(rows: Array, labels: Codes) -> tuple[Array, Array]:
    """Mean and variance of each feature in each class, (C, D) both."""
    sums, counts = class_sums(rows, labels)
    means = sums / counts[:, None]
    squares, _ = class_sums((rows - means[labels]) ** 2, labels)
    variances = squares / counts[:, None]
    several = counts > 1
    if several.any():
        variances[~several] = variances[several].mean(axis=0)
    return means, np.maximum(variances, FLOOR)


def _overlap(means: Array, variances: Array) -> float:
    """Minus the coefficients of all ordered pairs of classes."""
    total, logs = 0.0, np.log(variances)
    for one in range(len(means) - 1):
        others = slice(one + 1, None)
        middle = (variances[one] + variances[others]) / 2
        apart = ((means[one] - means[others]) ** 2 / middle).sum(axis=1) / 8
        unlike = (np.log(middle) - (logs[one] + logs[others]) / 2).sum(axis=1) / 2
        total -= 2 * float(np.exp(-apart - unlike).sum())
    return total
