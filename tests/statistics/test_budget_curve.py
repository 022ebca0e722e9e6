"""The best of k trials against every order of them, and by what must hold for any scores."""

import itertools
import math
import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ftlab.reports.pareto_front import dominates, pareto_front
from ftlab.statistics.budget_curve import budget_curve, over_searches, with_random_band

SCORES = st.lists(st.floats(-1e6, 1e6) | st.none(), min_size=1, max_size=12)


def by_hand(scores, k, higher):
    """Mean of the best of the first k, over all orders."""
    nothing = -math.inf if higher else math.inf
    known = [nothing if score is None else score for score in scores]
    best = max if higher else min
    bests = [best(order[:k]) for order in itertools.permutations(known)]
    return math.fsum(bests) / len(bests)


@pytest.mark.parametrize("higher", [True, False])
@pytest.mark.parametrize("scores", [
    [0.5], [0.1, 0.2], [0.3, 0.1, 0.5, 0.5, 0.2], [0.2, None, 0.9, 0.4], [None, None, 0.7, 0.1],
    [-1.5, 2.0, 0.0, -0.25, 3.0, 1.0], [None, None], [0.4, 0.4, 0.4],
])
def test_budget_curve__is_the_mean_over_all_orders(scores, higher):
    for best in budget_curve(scores, higher):
        assert best.expected == pytest.approx(by_hand(scores, best.k, higher), rel=1e-12)
        assert math.isnan(best.low) and math.isnan(best.high), "orders are no sample of sweeps"


@given(SCORES, st.booleans(), st.randoms())
def test_budget_curve__holds_for_any_scores(scores, higher, chance):
    curve = budget_curve(scores, higher)
    sign = 1 if higher else -1
    assert [best.k for best in curve] == list(range(1, len(scores) + 1))
    for one, more in itertools.pairwise(curve):
        before, after = sign * one.expected, sign * more.expected
        assert after >= before or after == pytest.approx(before, rel=1e-9, abs=1e-9)
    known = [score for score in scores if score is not None]
    top = (max if higher else min)(known) if known else -sign * math.inf
    assert curve[-1].expected == top
    shuffled = scores[:]
    chance.shuffle(shuffled)
    assert [best.expected for best in budget_curve(shuffled, higher)] == [best.expected for best in curve]
    mirrored = budget_curve([None if s is None else -s for s in scores], not higher)
    assert [-best.expected for best in mirrored] == [best.expected for best in curve]


# Accuracies of eleven trials, and the average tuning curve's band by opda 0.8.0:
# EmpiricalDistribution.confidence_bands(ys, 0.95, a=0., b=1., method="ks"), average_tuning_curve([1, 2, 4, 11])
OPDA = [0.61, 0.83, 0.79, 0.9, 0.42, 0.88, 0.7, 0.86, 0.3, 0.81, 0.77]
OPDA_LOW = [0.37765429, 0.5623818, 0.71015289, 0.79245885]
OPDA_HIGH = [0.90089053, 0.94878386, 0.98369538, 0.99955809]


def test_random_band__is_opdas():
    curve = with_random_band(budget_curve(OPDA), OPDA, (0.0, 1.0))
    shown = [curve[k - 1] for k in (1, 2, 4, 11)]
    assert [best.low for best in shown] == pytest.approx(OPDA_LOW, abs=1e-7)
    assert [best.high for best in shown] == pytest.approx(OPDA_HIGH, abs=1e-7)
    assert [best.expected for best in curve] == [best.expected for best in budget_curve(OPDA)]
    errors = [1 - score for score in OPDA]  # the same, turned round
    mirrored = with_random_band(budget_curve(errors, False), errors, (0.0, 1.0), False)
    assert [1 - best.high for best in mirrored] == pytest.approx([best.low for best in curve])
    assert [1 - best.low for best in mirrored] == pytest.approx([best.high for best in curve])


@pytest.mark.parametrize("n", [4, 12, 40])
@pytest.mark.parametrize("power", [1.0, 0.2])
def test_random_band__holds_the_truth_at_every_k(n, power):
    """Of U^p the best of k has the mean k / (k + p); bands at 50% must miss, and not too often."""
    draw, missed, studies = random.Random(n), 0, 400
    for _ in range(studies):
        scores = [draw.random() ** power for _ in range(n)]
        curve = with_random_band(budget_curve(scores), scores, (0.0, 1.0), level=0.5)
        missed += not all(best.low <= best.k / (best.k + power) <= best.high for best in curve)
    assert missed <= 0.5 * studies + 3 * math.sqrt(studies * 0.25)


def test_random_band__is_not_wider_than_it_says():
    """Kolmogorov's distance from the true distribution passes the band's in 100 - level of studies."""
    draw, beyond, studies, n = random.Random(1), 0, 2000, 12
    for _ in range(studies):
        scores = sorted(draw.random() for _ in range(n))
        distance = max(max((i + 1) / n - x, x - i / n) for i, x in enumerate(scores))
        # of k = 1 the two ends lie the distance e apart from the mean, but for the range's ends
        beyond += distance > _width(n)
    assert abs(beyond / studies - 0.05) < 3 * math.sqrt(0.05 * 0.95 / studies)


def _width(n):
    """The distance e of a band, read from one whose scores are all 0: the upper end of k = 1 is e."""
    return with_random_band(budget_curve([0.0] * n), [0.0] * n, (0.0, 1.0))[0].high


@given(st.lists(st.floats(0, 1) | st.none(), min_size=1, max_size=12), st.booleans())
@example([0.0, 1.0, 1.0, 1.0], False)  # the curve's own end, the best of all trials, may lie beyond
def test_random_band__is_around_the_best_of_k_drawn_from_the_trials(scores, higher):
    worst = 0.0 if higher else 1.0
    known = sorted((worst if score is None else score for score in scores), reverse=not higher)
    n = len(known)
    for best in with_random_band(budget_curve(scores, higher), scores, (0.0, 1.0), higher):
        drawn = sum(x * (((i + 1) / n) ** best.k - (i / n) ** best.k) for i, x in enumerate(known))
        assert -1e-12 <= best.low <= best.high <= 1 + 1e-12
        assert best.low - 1e-9 <= drawn <= best.high + 1e-9


def test_random_band__has_no_end_where_the_metric_has_none():
    losses = [0.3, 0.4, 0.9]
    curve = with_random_band(budget_curve(losses, False), losses, (0.0, math.inf), False)
    assert [best.high for best in curve] == [math.inf] * 3
    assert all(0 <= best.low < best.expected for best in curve)
    assert with_random_band(curve, [], (0.0, 1.0)) == curve, "without draws as it was"


def test_over_searches__is_their_mean_lowest_and_highest():
    first, second, third = (budget_curve(s) for s in ([0.5, 0.7, 0.6], [0.9, 0.2], [0.4, 0.4, 0.4]))
    found = over_searches([first, second, third])
    assert [best.k for best in found] == [1, 2], "as far as all have got"
    assert [best.expected for best in found] == pytest.approx(
        [(0.6 + 0.55 + 0.4) / 3, ((0.7 + 0.7 + 0.6) / 3 + 0.9 + 0.4) / 3])
    assert [(best.low, best.high) for best in found] == [
        pytest.approx((0.4, 0.6)), pytest.approx((0.4, 0.9))]


@given(SCORES)
def test_budget_curve__knows_no_expectation_while_all_may_have_failed(scores):
    failed = scores.count(None)
    assert [math.isfinite(best.expected) for best in budget_curve(scores)] == \
        [best > failed for best in range(1, len(scores) + 1)]


def test_budget_curve__many_trials_stay_in_range():
    curve = budget_curve([0.9] * 600)
    assert all(best.expected == pytest.approx(0.9, rel=1e-12) for best in curve)


def test_budget_curve__refuses_what_is_no_number():
    with pytest.raises(ValueError, match="finite"):
        budget_curve([0.1, math.nan])


POINTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12)


@given(POINTS, st.tuples(st.booleans(), st.booleans()))
def test_pareto_front__is_what_nobody_beats(points, higher):
    front = pareto_front(points, higher)
    assert front
    for place, point in enumerate(points):
        beaten = [other for other in points if dominates(other, point, higher)]
        assert (place in front) == (not beaten)
        # whoever is not on the front is beaten by somebody who is
        assert place in front or any(dominates(points[f], point, higher) for f in front)
    assert {points[f] for f in front} == \
        {points[::-1][f] for f in pareto_front(points[::-1], higher)}


def test_pareto_front__keeps_equals_and_follows_directions():
    points = [(0.9, 10), (0.9, 10), (0.8, 5), (0.7, 7)]
    assert pareto_front(points, [True, False]) == [0, 1, 2]
    assert pareto_front(points, [True, True]) == [0, 1]
    assert pareto_front(points, [False, False]) == [2, 3]
