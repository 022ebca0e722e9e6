import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ftlab.statistics.seed_summary import over_examples, summarise
from ftlab.tracking.metric_range import limits

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


def test_summarise__a_share_stays_one():
    """mean 0.95, sd 0.05, three seeds; by hand on the logit scale at the mean.

    logit(0.95) = 2.944439; its half width 4.302653 * 0.05 / sqrt(3) / (0.95 * 0.05) = 2.614881.
    """
    summary = summarise([0.9, 0.95, 1.0], limits("test/accuracy"))
    assert summary.ci_low == pytest.approx(1 / (1 + math.exp(-(2.944439 - 2.614881))), abs=1e-6)
    assert summary.ci_high == pytest.approx(1 / (1 + math.exp(-(2.944439 + 2.614881))), abs=1e-6)
    assert summarise([0.9, 0.95, 1.0]).ci_high > 1, "without a name there is no range"


def test_summarise__of_a_correlation_it_is_fishers_z():
    numbers = [0.97, 0.99, 0.92]
    mean, error = np.mean(numbers), np.std(numbers, ddof=1) / math.sqrt(3)
    half = stats.t.ppf(0.975, 2) * error / (1 - mean**2)  # the derivative of artanh
    expected = np.tanh([np.arctanh(mean) - half, np.arctanh(mean) + half])
    summary = summarise(numbers, limits("test/pearson"))
    assert (summary.ci_low, summary.ci_high) == pytest.approx(tuple(expected))


@pytest.mark.parametrize(("metric", "low", "high"), [
    ("test/f1/sport", 0, 1), ("val/rouge1", 0, 1), ("test/matthews", -1, 1),
    ("test/wer", 0, math.inf), ("cost/train_seconds", 0, math.inf), ("test/r2", -math.inf, 1),
    ("test/kappa", -1, 1), ("test/specificity/sport", 0, 1), ("test/mean_iou", 0, 1),
    ("test/f2", 0, 1), ("test/loss", 0, math.inf), ("test/brier", 0, math.inf),
])
@pytest.mark.parametrize("numbers", [
    [0.01, 0.9], [0.0, 0.0, 0.0001], [1.0, 1.0, 0.99], [0.0, 0.0], [1.0, 1.0], [0.5, 0.5, 0.5]])
def test_summarise__no_interval_leaves_its_metrics_range(metric, low, high, numbers):
    summary = summarise(numbers, limits(metric))
    if len(set(numbers)) == 1:  # nothing says how sure that is
        assert math.isnan(summary.ci_low) and math.isnan(summary.ci_high) and not summary.interval
        assert list(summary.as_metrics("m")) == ["m.mean", "m.n", "m.std"]
    else:
        assert low <= summary.ci_low < summary.mean < summary.ci_high <= high


@pytest.mark.parametrize(("metric", "end", "sign"), [("test/wer", 0.0, 1), ("test/r2", 1.0, -1)])
def test_summarise__beside_one_end_it_is_of_the_distances_logarithm(metric, end, sign):
    """By hand: distances 0.1, 0.2 and 0.3 from the end; 4.302653 * 0.1 / sqrt(3) / 0.2 = 1.242069."""
    summary = summarise([end + sign * far for far in (0.1, 0.2, 0.3)], limits(metric))
    ends = [end + sign * 0.2 * math.exp(part * 1.242069) for part in (-1, 1)]
    assert sorted(ends) == pytest.approx([summary.ci_low, summary.ci_high], abs=1e-6)
    assert summary.interval == "log"


def test_summarise__what_rounds_to_an_end_has_no_interval():
    assert not summarise([1.0, 1.0, 1 - 1e-16], (0, 1)).interval
    assert not summarise([0.0, 0.0, 1e-300], (0, math.inf)).interval


@pytest.mark.parametrize("right", [0, 7, 399, 400])
def test_over_examples__is_statsmodels(right):
    from statsmodels.stats.proportion import proportion_confint

    summary = over_examples(summarise([right / 400] * 3), 400)
    assert (summary.ci_low, summary.ci_high) == pytest.approx(
        proportion_confint(right, 400, method="beta"), nan_ok=True, abs=1e-9)
    assert (summary.n, summary.std, summary.interval) == (3, 0.0, "Clopper-Pearson")


def test_summarise__a_name_that_promises_too_much_is_not_believed():
    assert summarise([30.0, 32.0, 34.0], limits("test/bleu")) == summarise([30.0, 32.0, 34.0])
