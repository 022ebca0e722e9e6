import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ftlab.tracking.aggregate import summarise

values = st.floats(-1e6, 1e6).map(lambda x: round(x, 6))


@settings(deadline=None)  # shared machines
@given(st.lists(values, min_size=2, max_size=12))
def test_summarise__agrees_with_scipy(numbers):
    summary = summarise(numbers)
    array = np.asarray(numbers)
    assert summary.n == len(numbers)
    assert summary.mean == pytest.approx(array.mean(), rel=1e-9, abs=1e-6)
    assert summary.std == pytest.approx(array.std(ddof=1), rel=1e-6, abs=1e-6)
    if array.std() > 1e-3:
        low, high = stats.t.interval(0.95, len(numbers) - 1, array.mean(), stats.sem(array))
        assert (summary.ci_low, summary.ci_high) == pytest.approx((low, high), rel=1e-6, abs=1e-6)


@settings(deadline=None)  # shared machines
@given(st.permutations([0.1, 0.2, 0.7, 0.333, 0.9]))
def test_summarise__order_does_not_matter(numbers):
    assert summarise(numbers) == summarise(sorted(numbers))


def test_summarise__three_seeds_by_hand():
    # mean 2, std 1; t(0.975, 2) = 4.302653 (any table of Student's t)
    summary = summarise([1.0, 2.0, 3.0])
    assert (summary.mean, summary.std) == (2.0, 1.0)
    assert summary.ci_high - 2.0 == pytest.approx(4.302653 / math.sqrt(3), abs=1e-6)


def test_summarise__one_seed_has_no_spread():
    summary = summarise([0.5])
    assert (summary.mean, summary.n) == (0.5, 1)
    assert all(map(math.isnan, (summary.std, summary.ci_low, summary.ci_high)))
    assert summary.as_metrics("m") == {"m.mean": 0.5, "m.n": 1.0}


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_summarise__a_broken_seed_is_not_averaged_away(broken):
    summary = summarise([0.5, broken, 0.7])
    assert summary.n == 3
    assert math.isnan(summary.mean)


def test_summarise__nothing():
    assert summarise([]).n == 0
    assert math.isnan(summarise([]).mean)
