"""The best of k trials against every order of them, and by what must hold for any scores."""

import itertools
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftlab.reports.pareto_front import dominates, pareto_front
from ftlab.statistics.budget_curve import budget_curve

SCORES = st.lists(st.floats(-1e6, 1e6) | st.none(), min_size=1, max_size=12)


def by_hand(scores, k, higher):
    """Mean, 5% and 95% quantile of the best of the first k, over all orders."""
    nothing = -math.inf if higher else math.inf
    known = [nothing if score is None else score for score in scores]
    best = max if higher else min
    bests = sorted((best(order[:k]) for order in itertools.permutations(known)), reverse=not higher)

    def quantile(q):  # the worst value that at least a share q of the orders does not pass
        return bests[math.ceil(q * len(bests)) - 1]

    ends = sorted((quantile(Fraction(1, 20)), quantile(Fraction(19, 20))))
    return math.fsum(bests) / len(bests), *ends


@pytest.mark.parametrize("higher", [True, False])
@pytest.mark.parametrize("scores", [
    [0.5], [0.1, 0.2], [0.3, 0.1, 0.5, 0.5, 0.2], [0.2, None, 0.9, 0.4], [None, None, 0.7, 0.1],
    [-1.5, 2.0, 0.0, -0.25, 3.0, 1.0], [None, None], [0.4, 0.4, 0.4],
])
def test_budget_curve__is_the_mean_over_all_orders(scores, higher):
    for best in budget_curve(scores, higher):
        expected, low, high = by_hand(scores, best.k, higher)
        assert best.expected == pytest.approx(expected, rel=1e-12)
        assert (best.low, best.high) == (low, high)


def test_budget_curve__quantiles_are_exact_where_they_fall_on_a_step():
    # Of 20 trials one is a twentieth: the 5% quantile of the first is the worst, not the next.
    (first, *_) = budget_curve([n / 20 for n in range(20)])
    assert (first.low, first.high) == (0.0, 0.9)
    assert first.expected == pytest.approx(0.475)


@given(SCORES, st.booleans(), st.randoms())
def test_budget_curve__holds_for_any_scores(scores, higher, chance):
    curve = budget_curve(scores, higher)
    sign = 1 if higher else -1
    assert [best.k for best in curve] == list(range(1, len(scores) + 1))
    for one, more in itertools.pairwise(curve):
        for name in ("expected", "low", "high"):
            before, after = sign * getattr(one, name), sign * getattr(more, name)
            assert after >= before or after == pytest.approx(before, rel=1e-9, abs=1e-9)
    known = [score for score in scores if score is not None]
    top = (max if higher else min)(known) if known else -sign * math.inf
    assert curve[-1].expected == curve[-1].low == curve[-1].high == top
    shuffled = scores[:]
    chance.shuffle(shuffled)
    assert budget_curve(shuffled, higher) == curve
    mirrored = budget_curve([None if s is None else -s for s in scores], not higher)
    assert [(-b.expected, -b.high, -b.low) for b in mirrored] == \
        [(b.expected, b.low, b.high) for b in curve]


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
