"""Weighted tau of two orders, its interval, and what chance gives."""

import math
from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from ftlab.statistics.rank_agreement import agreement, by_chance


def test_agreement__is_scipys_weighted_tau():
    a, b = [3.0, 1.0, 4.0, 1.5, 9.0, 2.6], [0.8, 0.2, 0.7, 0.4, 0.9, 0.1]
    found = agreement(a, b)
    assert found.tau == pytest.approx(stats.weightedtau(a, b).statistic)
    assert found.things == 6
    assert found.low < found.tau < found.high
    assert agreement(b, a).tau == pytest.approx(found.tau)


def test_agreement__says_the_same_twice():
    a, b = np.random.default_rng(0).normal(size=(2, 8))
    assert agreement(a, b) == agreement(a, b)


@pytest.mark.parametrize("sign", [1, -1])
def test_agreement__equal_orders_have_no_interval(sign):
    """Every draw of four in one order has that order: [1, 1] would pretend to be sure."""
    found = agreement([1, 2, 3, 4], [sign * value for value in (10, 20, 30, 40)])
    assert found.tau == pytest.approx(sign)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


@pytest.mark.parametrize(("a", "b"), [
    ([1, 2], [1, 2]), ([], []), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [1, 1, 1]),
    ([1, 2, math.nan], [1, 2, 3])])
def test_agreement__nothing_to_compare(a, b):
    found = agreement(a, b)
    assert math.isnan(found.tau)
    assert math.isnan(found.low)


def test_agreement__narrower_with_more_things():
    widths = []
    for things in (6, 48):
        a = np.arange(things, dtype=float)
        found = agreement(a, a + things / 3 * np.sin(7 * a))
        assert found.low < found.tau < found.high
        widths.append(found.high - found.low)
    assert widths == sorted(widths, reverse=True)
    assert widths[1] < widths[0] / 2


def test_by_chance__all_orders_of_five():
    taus = sorted(abs(stats.weightedtau(range(5), order).statistic)
                  for order in permutations(range(5)))
    assert by_chance(5) == pytest.approx(taus[math.ceil(0.95 * 120) - 1])


def test_by_chance__less_with_more_things():
    values = [by_chance(things) for things in (3, 4, 5, 6, 8, 16)]
    assert values[:2] == pytest.approx([1, 1])
    assert values == sorted(values, reverse=True)
    assert 0.5 < by_chance(8) < 0.7
    assert math.isnan(by_chance(2))
