"""Distances of two samples, held to scikit-learn, to loops, and to samples of which they are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.preprocessing import StandardScaler

from ftlab.statistics.two_samples import (
    BANDWIDTHS,
    DRAWS,
    FOLDS,
    a_distance,
    apart,
    coral,
    discrepancy,
    logistic,
)


def samples(shift: float, rows: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(rows, 6)), generator.normal(size=(rows, 6)) + shift


def test_logistic__is_scikit_learns() -> None:
    one, other = samples(0.4)
    features = np.concatenate([one, other])
    sign = np.repeat([1.0, -1.0], 60)
    weight, bias = logistic(features, sign)
    theirs = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(features, sign)
    np.testing.assert_allclose(weight, theirs.coef_[0], atol=1e-4)
    assert bias == pytest.approx(theirs.intercept_[0], abs=1e-4)


def test_a_distance__is_of_scikit_learns_errors() -> None:
    one, other = samples(0.3)
    found, low, high = a_distance(one, other, np.random.default_rng(5))
    random = np.random.default_rng(5)
    fold = np.concatenate([random.permutation(60) % FOLDS for _ in range(2)])
    both, domain = np.concatenate([one, other]), np.repeat([1, 0], 60)
    wrong = 0
    for held in range(FOLDS):
        scaler = StandardScaler().fit(both[fold != held])
        model = LogisticRegression().fit(scaler.transform(both[fold != held]), domain[fold != held])
        wrong += int((model.predict(scaler.transform(both[fold == held])) != domain[fold == held]).sum())
    assert 0 < wrong < 60
    assert found == pytest.approx(2 * (1 - 2 * wrong / 120))
    error = stats.binomtest(wrong, 120).proportion_ci(0.95, method="exact")
    assert (low, high) == (pytest.approx(2 * (1 - 2 * error.high)), pytest.approx(2 * (1 - 2 * error.low)))


def test_a_distance__of_samples_far_apart_and_of_the_same_one() -> None:
    found, low, high = a_distance(*samples(20), np.random.default_rng(0))
    assert found == high == 2
    assert 1.8 < low < 2
    near = [a_distance(*samples(0, seed=seed), np.random.default_rng(0)) for seed in range(10)]
    assert abs(np.mean([value for value, _, _ in near])) < 0.15
    assert sum(low < 0 < high for _, low, high in near) >= 8


def test_discrepancy__is_of_scikit_learns_kernels() -> None:
    one, other = samples(1.5, rows=20)
    both = np.concatenate([one, other])
    scale = np.square(both[:, None] - both[None]).sum(axis=2).mean()

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.mean([rbf_kernel(a, b, gamma=1 / (2 * times * scale)) for times in BANDWIDTHS], axis=0)

    expected = sum((k.sum() - k.trace()) / (20 * 19) for k in (kernel(one, one), kernel(other, other)))
    expected -= 2 * kernel(one, other).mean()
    found, p = discrepancy(one, other, np.random.default_rng(0))
    assert found == pytest.approx(expected, rel=1e-10)
    assert p == 1 / (DRAWS + 1)


def test_discrepancy__p_is_uniform_where_nothing_differs() -> None:
    p = [discrepancy(*samples(0, rows=15, seed=seed), np.random.default_rng(seed))[1]
         for seed in range(60)]
    assert stats.kstest(p, "uniform").pvalue > 0.01
    same, _ = samples(0)
    assert discrepancy(same, same, np.random.default_rng(0))[1] > 0.5


def test_coral__is_of_covariances() -> None:
    one, other = samples(3)
    expected = np.square(np.cov(one.T) - np.cov(2 * other.T)).sum() / (4 * 36)
    assert coral(one, 2 * other) == pytest.approx(expected)
    assert coral(one, one + 5) == pytest.approx(0, abs=1e-20)


def test_apart__takes_as_many_of_each() -> None:
    one, other = samples(0.2)
    found = apart(one, np.concatenate([other, other + 0.1]))
    assert found.rows == 60
    assert found == apart(one, np.concatenate([other, other + 0.1]))
    assert found.low <= found.a_distance <= found.high
    with pytest.raises(ValueError, match="10 rows of each at least, got 9"):
        apart(one[:9], other)
