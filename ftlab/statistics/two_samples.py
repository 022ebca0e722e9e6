"""How far two samples of features lie apart, as those of two domains do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats
from scipy.spatial.distance import cdist

Array = NDArray[np.float64]

FOLDS = 5
DRAWS = 999
"""Permutations: the smallest p-value is 1 / (DRAWS + 1)."""
BANDWIDTHS = (0.5, 1.0, 2.0)
"""Variances of the Gaussian kernels over the mean squared distance of all pairs."""
LEVEL = 0.95


@dataclass(frozen=True)
class Apart:
    """Three distances of two samples.

    Attributes:
        rows: examples of each.
        a_distance: 2 (1 - 2 error) of a classifier that tells them apart: 0 where it guesses, 2
            where it makes no error, below 0 by chance alone.
        low, high: interval of it, by the error of examples held out (Clopper, Pearson 1934).
        mmd: the unbiased squared maximum mean discrepancy.
        p: that so large a discrepancy comes by chance, by permutation.
        coral: |C - C'|^2 / (4 d^2) of the covariances, which few examples make larger.
    """

    rows: int
    a_distance: float
    low: float
    high: float
    mmd: float
    p: float
    coral: float


def apart(one: Array, other: Array, seed: int = 0) -> Apart:
    """Measure two samples, drawing as many rows of the larger as the smaller has.

    Args:
        one: (N, D).
        other: (M, D).
        seed: of the draw, the folds and the permutations.

    Raises:
        ValueError: fewer than two rows a fold.
    """
    rows = min(len(one), len(other))
    if rows < 2 * FOLDS:
        raise ValueError(f"{2 * FOLDS} rows of each at least, got {rows}")
    random = np.random.default_rng(seed)
    one, other = (sample[np.sort(random.permutation(len(sample))[:rows])].astype(np.float64)
                  for sample in (one, other))
    mmd, p = discrepancy(one, other, random)
    return Apart(rows, *a_distance(one, other, random), mmd, p, coral(one, other))


def a_distance(one: Array, other: Array, random: np.random.Generator) -> tuple[float, float, float]:
    """The proxy A-distance by cross-validated logistic regression, and its interval.

    Ben-David, Blitzer, Crammer, Pereira (2007),
    https://proceedings.neurips.cc/paper/2006/hash/b1b0432ceafb0ce714426e9114852ac7-Abstract.html

    Args:
        one: (N, D).
        other: (N, D).
        random: draws the folds.
    """
    both = np.concatenate([one, other])
    sign = np.concatenate([np.ones(len(one)), -np.ones(len(other))])
    fold = np.concatenate([random.permutation(len(part)) % FOLDS for part in (one, other)])
    wrong = 0
    for held in range(FOLDS):
        train, test = fold != held, fold == held
        mean, scale = both[train].mean(axis=0), both[train].std(axis=0)
        scale[scale == 0] = 1
        weight, bias = logistic((both[train] - mean) / scale, sign[train])
        wrong += int((((both[test] - mean) / scale @ weight + bias) * sign[test] <= 0).sum())
    total, tail = len(both), (1 - LEVEL) / 2
    low = stats.beta.ppf(tail, wrong, total - wrong + 1) if wrong else 0.0
    high = stats.beta.ppf(1 - tail, wrong + 1, total - wrong) if wrong < total else 1.0
    value, least, most = (float(2 * (1 - 2 * error)) for error in (wrong / total, high, low))
    return value, least, most


def logistic(features: Array, sign: Array) -> tuple[Array, float]:
    """Weight (D,) and bias of the logistic regression with |weight|^2 / 2 added to the losses' sum.

    Args:
        features: (N, D).
        sign: 1 or -1 of each row.
    """
    def objective(theta: Array) -> tuple[float, Array]:
        margin = sign * (features @ theta[:-1] + theta[-1])
        pull = -sign * special.expit(-margin)
        gradient = np.append(features.T @ pull + theta[:-1], pull.sum())
        return float(-special.log_expit(margin).sum() + theta[:-1] @ theta[:-1] / 2), gradient

    found = optimize.minimize(objective, np.zeros(features.shape[1] + 1), jac=True,
                              method="L-BFGS-B", options={"maxiter": 1000})
    return found.x[:-1], float(found.x[-1])


def discrepancy(one: Array, other: Array, random: np.random.Generator) -> tuple[float, float]:
    """The unbiased squared MMD with the mean of Gaussian kernels, and its p by permutation.

    Gretton, Borgwardt, Rasch, Schoelkopf, Smola (2012),
    https://www.jmlr.org/papers/v13/gretton12a.html

    Args:
        one: (N, D).
        other: (N, D).
        random: permutes the rows.
    """
    both, rows = np.concatenate([one, other]), len(one)
    squared = cdist(both, both, "sqeuclidean")
    scale = squared.mean() or 1.0
    kernel = np.mean([np.exp(-squared / (2 * a * scale)) for a in BANDWIDTHS], axis=0)
    np.fill_diagonal(kernel, 0)
    order = np.stack([np.arange(2 * rows), *(random.permutation(2 * rows) for _ in range(DRAWS))])
    first = (order < rows).astype(np.float64).T  # (2N, 1 + draws): 1 for who counts as of the first
    products, total = kernel @ first, kernel.sum()
    within = (first * products).sum(axis=0)
    between = products.sum(axis=0) - within
    values = (total - 2 * between) / (rows * (rows - 1)) - 2 * between / rows**2
    return float(values[0]), float((values >= values[0] - 1e-12).mean())


def coral(one: Array, other: Array) -> float:
    """|C - C'|^2 / (4 d^2), of the covariances (D, D) of two samples.

    Sun, Saenko (2016), https://arxiv.org/abs/1607.01719

    Args:
        one: (N, D).
        other: (M, D).
    """
    difference = np.cov(one.T) - np.cov(other.T)
    return float(np.square(difference).sum() / (4 * one.shape[1] ** 2))
