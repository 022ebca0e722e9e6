"""Differences between groups, held to fairlearn; intervals of shares, to statsmodels."""

import numpy as np
import pytest
from fairlearn.metrics import demographic_parity_difference as fairlearn_parity
from fairlearn.metrics import equalized_odds_difference as fairlearn_odds
from statsmodels.stats.proportion import proportion_confint

from ftlab.statistics.group_differences import (
    demographic_parity_difference,
    equalized_odds_difference,
    wilson,
)


@pytest.mark.parametrize("seed", range(5))
def test_two_classes__are_fairlearns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    target, groups = rng.integers(0, 2, 300), rng.choice(list("abc"), 300)
    predicted = np.where(rng.random(300) < 0.2 + 0.2 * (groups == "b"), 1 - target, target)
    assert demographic_parity_difference(predicted, groups) == pytest.approx(
        fairlearn_parity(target, predicted, sensitive_features=groups))
    assert equalized_odds_difference(target, predicted, groups) == pytest.approx(
        fairlearn_odds(target, predicted, sensitive_features=groups))


def test_three_classes__are_the_widest_of_one_against_the_rest() -> None:
    rng = np.random.default_rng(1)
    target, predicted = rng.integers(0, 3, 400), rng.integers(0, 3, 400)
    groups = rng.choice(list("ab"), 400)
    apart = [fairlearn_parity(target == c, predicted == c, sensitive_features=groups) for c in range(3)]
    assert demographic_parity_difference(predicted, groups) == pytest.approx(max(apart))


def test_alike__differ_by_nothing() -> None:
    target, predicted, groups = ["x", "y"] * 4, ["x", "x"] * 4, ["a", "a", "b", "b"] * 2
    assert demographic_parity_difference(predicted, groups) == 0
    assert equalized_odds_difference(target, predicted, groups) == 0
    assert demographic_parity_difference(["x", "y"], ["a", "b"]) == 1


def test_group_without_a_class_is_left_out_for_it() -> None:
    assert equalized_odds_difference(["x", "x", "y"], ["x", "y", "y"], ["a", "a", "b"]) == 0


@pytest.mark.parametrize(("right", "count"), [(0, 5), (3, 7), (40, 40), (812, 1000)])
def test_wilson__is_statsmodels(right: int, count: int) -> None:
    assert wilson(right / count, count) == pytest.approx(
        proportion_confint(right, count, method="wilson"), abs=1e-12)
