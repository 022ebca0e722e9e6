"""The tests between techniques, against scipy, statsmodels, published figures and simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from ftlab.statistics.bootstrap import bootstrap_interval
from ftlab.statistics.multiple_testing import LEVEL, holm, standing
from ftlab.statistics.paired import (
    DRAWS,
    of_two,
    over_both,
    over_examples,
    over_seeds,
)
from ftlab.statistics.ranks import rank

RANDOM = np.random.default_rng(5)


def test_where_examples_add_nothing_both_is_students_test_over_seeds():
    by_seed = RANDOM.normal(0.02, 0.02, 4)
    found = over_both(np.repeat(by_seed[:, None], 300, axis=1))
    expected = stats.ttest_1samp(by_seed, 0.0)
    interval = expected.confidence_interval()
    assert found.p == pytest.approx(expected.pvalue, rel=1e-3)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-3)


def test_where_seeds_add_nothing_both_is_students_test_over_examples():
    by_example = RANDOM.normal(0.1, 1, 200)
    found = over_both(np.repeat(by_example[None], 3, axis=0))
    expected = stats.ttest_1samp(by_example, 0.0)
    interval = expected.confidence_interval()
    assert found.p == pytest.approx(expected.pvalue, rel=1e-3)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-3)
    assert found.effect == pytest.approx(by_example.mean() / by_example.std(ddof=1))


def test_examples_that_vary_less_than_chance_add_nothing_and_take_nothing():
    table = np.random.default_rng(5).normal(size=(4, 30))
    table += np.array([[13], [15], [-12], [16]]) - table.mean(axis=1, keepdims=True)
    table -= table.mean(axis=0) - table.mean()  # every example's mean is the same
    assert over_both(table).p == pytest.approx(
        stats.ttest_1samp(table.mean(axis=1), 0).pvalue, rel=2e-3)


@pytest.mark.parametrize("rows", [(3, 3, 3), (3, 77, 200)])
def test_one_example_more_right_in_each_of_three_seeds_is_no_difference(rows):
    """444 examples, of which the techniques differ in one, the same in every seed or another."""
    table = np.zeros((3, 444))
    table[range(3), rows] = 1
    found = over_both(table)
    # by hand: the mean is 1/444; the residuals of three rows with a one each, over 2 x 443 degrees
    # of freedom, or, where it is the same example, examples alone, as Student has it
    expected = stats.ttest_1samp(table.mean(axis=0), 0.0)
    if len(set(rows)) == 3:
        error = math.sqrt((3 - 9 / 444 - 3 * 2 / 6 + 9 / 1332) / (2 * 443) / 1332)
        assert found.p == pytest.approx(2 * stats.norm.sf(1 / 444 / error), rel=0.2)
    else:
        assert found.p == pytest.approx(expected.pvalue, rel=1e-3)
    assert found.p > 0.05
    assert found.low < 0 < found.high


def test_seeds_are_never_taken_to_vary_less_than_the_examples_make_them():
    """Equal counts in every seed: what is left is the residuals' variance, and the examples'."""
    generator = np.random.default_rng(3)
    table = generator.normal(size=(3, 200))
    table += 0.1 - table.mean(axis=1, keepdims=True)  # the same difference in every seed
    by_example = table.mean(axis=0)
    rest = table - by_example
    residual = (rest**2).sum() / (2 * 199)
    variance = residual / 600 + max(3 * by_example.var(ddof=1) - residual, 0) / 600
    assert over_both(table).p == pytest.approx(2 * stats.norm.sf(0.1 / math.sqrt(variance)), rel=0.1)


def test_a_few_examples_that_all_agree_are_still_few():
    """Right against wrong on all of two, five and fifty examples, by Student's t of E and 0."""
    for examples, most, fewest in ((2, 0.4, 0.05), (5, 0.05, 1e-3), (50, 1e-20, 0.0)):
        found = over_both(np.ones((3, examples)))
        assert fewest <= found.p < most
        assert found.low < 1 < found.high


def test_over_seeds_takes_no_scatter_below_the_metrics_step():
    found = over_seeds([0.5, 0.6, 0.7], [0.4, 0.5, 0.6], 0.1)
    assert found.p == pytest.approx(2 * stats.t.sf(math.sqrt(3), 2))
    assert found.high - found.low == pytest.approx(2 * stats.t.ppf(0.975, 2) * 0.1 / math.sqrt(3))
    assert found.effect == pytest.approx(1.0)


def test_the_bootstraps_p_value_is_never_zero():
    table = np.random.default_rng(5).uniform(0.5, 1, (2, 30))
    assert over_examples(table).p == 1 / (DRAWS + 1)


@given(st.integers(2, 6), st.integers(2, 30), st.integers(0, 2**32 - 1))
def test_interval_and_p_agree_and_the_test_is_symmetric(seeds, examples, state):
    table = np.random.default_rng(state).integers(-1, 2, (seeds, examples)).astype(float)
    ours, theirs = over_both(table), over_both(-table)
    assert ours.p == pytest.approx(theirs.p)
    assert (ours.low, ours.high) == pytest.approx((-theirs.high, -theirs.low))
    assert ours.low <= ours.difference <= ours.high
    assert ours.p == of_two(table).p_differs
    if abs(ours.p - 0.05) > 1e-6 and ours.high > ours.low:
        assert (ours.p < 0.05) == (ours.low > 0 or ours.high < 0)


def test_over_seeds_is_scipys_paired_test():
    a, b = RANDOM.normal(0.8, 0.02, 5), RANDOM.normal(0.79, 0.02, 5)
    found, expected = over_seeds(a, b, 0.0), stats.ttest_rel(a, b)
    interval = expected.confidence_interval()
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_one_seed_of_hits_and_misses_is_mcnemars_exact_test():
    table = RANDOM.choice([-1.0, 0.0, 1.0], (1, 400), p=[0.03, 0.9, 0.07])
    wins, losses = (table > 0).sum(), (table < 0).sum()
    expected = mcnemar([[0, wins], [losses, 0]], exact=True)
    assert over_examples(table).p == pytest.approx(expected.pvalue)
    assert "McNemar" in over_examples(table).test


def test_the_bootstrap_over_examples_agrees_with_scipys():
    table = RANDOM.normal(0.05, 1, (3, 500))
    found, by_example = over_examples(table), table.mean(axis=0)
    expected = stats.bootstrap((by_example,), np.mean, method="percentile", rng=1)
    low, high = expected.confidence_interval
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.004)
    assert found.p == pytest.approx(stats.ttest_1samp(by_example, 0).pvalue, abs=0.01)


def test_equal_techniques_differ_by_nothing():
    zeros = np.zeros((3, 50))
    for found in (over_both(zeros), over_examples(zeros), over_seeds([1, 2], [1, 2], 0.0)):
        assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)
        assert math.isnan(found.effect)


def test_holm_as_r_adjusts():
    raw = [0.01, 0.04, 0.03, 0.005]
    expected = [0.03, 0.06, 0.06, 0.02]  # p.adjust(c(.01, .04, .03, .005), "holm")
    names = [("a", str(n)) for n in range(4)]
    assert list(holm(dict(zip(names, raw, strict=True))).values()) == pytest.approx(expected)


def test_what_cannot_be_tested_counts_for_nothing():
    found = holm({("a", "b"): 0.04, ("a", "c"): math.nan})
    assert found[("a", "b")] == 0.04
    assert math.isnan(found[("a", "c")])
    means = {"a": 0.9, "b": 0.8, "c": 0.89, "d": 0.9}
    assert standing(means, found, True) == ("a", ["a", "d"])
    assert standing(means, {("a", "b"): 0.06, ("b", "c"): 0.5}, False) == ("b", ["a", "b", "c"])


def test_demsars_example():
    # Table 6 of Demšar (2006): C4.5 with and without two of its parameters tuned, 14 data sets.
    # The paper ranked the next to last row before it rounded it; .9751 is a number of that kind.
    table = """.763 .768 .771 .798|.599 .591 .590 .569|.954 .971 .968 .967|.628 .661 .654 .657
        |.882 .888 .886 .898|.936 .931 .916 .931|.661 .668 .609 .685|.583 .583 .563 .625
        |.775 .838 .866 .875|1 1 1 1|.940 .962 .965 .962|.619 .666 .614 .669|.972 .981 .9751 .975
        |.957 .978 .946 .970"""
    scores = {str(n): dict(zip("abcd", map(float, row.split()), strict=True))
              for n, row in enumerate(table.split("|"))}
    found = rank(scores, higher_is_better=True)
    assert [round(value, 3) for value in found.ranks.values()] == [3.143, 2.000, 2.893, 1.964]
    # F = 3.69 with 3 and 39 degrees of freedom, ties not corrected for; a row here is all ties
    assert found.p == pytest.approx(stats.f.sf(3.69, 3, 39), rel=0.5)
    assert found.difference == pytest.approx(1.25, abs=0.005)
    assert found.pairs["a"]["d"] > LEVEL  # 3.143 - 1.964 < 1.25: Nemenyi sees nothing


def test_friedmans_test_is_exact_for_few_data_sets():
    table = [(0.9, 0.8, 0.7), (0.9, 0.7, 0.8), (0.6, 0.5, 0.1)]
    scores = {f"data {n}": dict(zip("abc", row, strict=True)) for n, row in enumerate(table)}
    ranks = stats.rankdata(-np.array(table), axis=1)
    every = [stats.friedmanchisquare(*np.array(rows).T).statistic
             for rows in itertools.product(itertools.permutations((1, 2, 3)), repeat=3)]
    ours = stats.friedmanchisquare(*ranks.T).statistic
    assert rank(scores, True).p == pytest.approx(np.mean(np.array(every) >= ours - 1e-9))


def test_friedmans_test_of_many_data_sets_is_near_its_chi_square():
    table = np.random.default_rng(0).uniform(size=(60, 4)) + np.array([0.15, 0.1, 0.05, 0.0])
    found = rank({f"data {n}": dict(zip("abcd", row, strict=True)) for n, row in enumerate(table)}, True)
    assert found.p == pytest.approx(stats.friedmanchisquare(*table.T).pvalue, abs=0.01)
    assert 0.01 < found.p < 0.9


@pytest.mark.parametrize(("row", "p"), [((0.9, 0.8, 0.7), 1 / 6**3), ((0.9, 0.9, 0.9), 1.0)])
def test_friedmans_test_where_all_data_sets_rank_alike_or_all_techniques(row, p):
    scores = {f"data {n}": dict(zip("abc", row, strict=True)) for n in range(4)}
    assert rank(scores, True).p == pytest.approx(p)


def test_ranks_need_two_data_sets_and_two_techniques():
    assert rank({"x": {"a": 1.0, "b": 2.0}}, True) is None
    assert rank({"x": {"a": 1.0, "b": 2.0}, "y": {"a": 1.0}}, True) is None
    two = rank({"x": {"a": 1.0, "b": 2.0}, "y": {"a": 1.0, "b": 3.0}}, False)
    assert two.ranks == {"a": 1.0, "b": 2.0}
    assert math.isnan(two.p)


def test_bootstrap_over_seeds():
    values = list(RANDOM.normal(0.8, 0.05, 12))
    low, high = bootstrap_interval(values)
    assert min(values) < low < np.mean(values) < high < max(values)
    half = stats.t.ppf(0.975, 11) * stats.sem(values)
    assert high - low == pytest.approx(2 * half, rel=0.25)
    assert all(map(math.isnan, bootstrap_interval([0.5])))
    assert all(map(math.isnan, bootstrap_interval([0.5, math.nan])))
    assert bootstrap_interval([0.5, 0.5]) == (0.5, 0.5)
