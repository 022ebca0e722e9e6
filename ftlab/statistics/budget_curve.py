"""The best of k trials: its expectation from the scores of n trials, and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from scipy.stats import kstwo

LEVEL = 0.95


@dataclass(frozen=True)
class ExpectedBest:
    """The best score of the first k trials, over all orders of the n trials.

    Attributes:
        k: trials spent.
        expected: mean over the orders; not finite while all k may be trials without a score.
        low, high: of a band around it, the smaller number first; nan without one, and not finite
            where it has no end.
    """

    k: int
    expected: float
    low: float = math.nan
    high: float = math.nan


def budget_curve(scores: Sequence[float | None], higher_is_better: bool = True) -> list[ExpectedBest]:
    """The best of the first k of n trials in random order, for k = 1 ... n.

    With the scores sorted from worst to best as x_1 ... x_n, the best of k drawn without
    replacement is x_i with probability C(i-1, k-1) / C(n, k). Nothing is simulated.

    Dodge, Gururangan, Card, Schwartz, Smith (2019), "Show Your Work",
    https://arxiv.org/abs/1909.03004, draw with replacement, which is biased; this is the unbiased
    form of Tang, Lee, Xin, Liu, Yu, Lin (2020), https://arxiv.org/abs/2004.13705.

    Args:
        scores: of the trials, in any order; None for one that spent its budget and gave nothing,
            which is worse than any score.
        higher_is_better: of the scores.

    Raises:
        ValueError: a score is not finite.
    """
    ordered, sign = _ordered(scores, higher_is_better, -math.inf)
    n = len(ordered)
    return [ExpectedBest(k, sign * math.fsum(
        w * x for w, x in zip(_weights(n, k), reversed(ordered), strict=False))) for k in range(1, n + 1)]


def with_random_band(
    curve: Sequence[ExpectedBest], draws: Sequence[float | None], limits: tuple[float, float],
    higher_is_better: bool = True, level: float = LEVEL,
) -> list[ExpectedBest]:
    """The curve with a band that holds the expected best of k random trials, for all k at once.

    The distribution of the scores of random trials lies within F_n +- e everywhere, at the level,
    with e the quantile of Kolmogorov's statistic for n draws (exact for scores without ties, on
    the safe side with them; e <= sqrt(log(2 / (1 - level)) / 2n), Dvoretzky-Kiefer-Wolfowitz with
    Massart's constant). The best of k has the distribution F^k, whose mean falls where F rises, so
    the two ends of F are the two ends of the curve, and of all its points together.

    Lourie, Cho, He (2023), "Show Your Work with Confidence", https://arxiv.org/abs/2311.09480

    Args:
        curve: from `budget_curve`.
        draws: scores of trials that were drawn from one distribution, each without regard to the
            others: of random search, without pruning. None as there; it counts as the worst.
        limits: the least and the greatest value that a score can have. Where what lies beyond the
            scores has no end, neither has the band.
        higher_is_better: of the scores.
        level: chance of holding all of them.

    Returns:
        The same expectations; without draws, no band.
    """
    if not draws:
        return list(curve)
    worst, best = sorted((1 if higher_is_better else -1) * end for end in limits)
    xs, sign = _ordered(draws, higher_is_better, worst)
    n = len(xs)
    e = float(kstwo.isf(1 - level, n))
    above = [min(1.0, i / n + e) for i in range(n + 1)]
    below = [max(0.0, i / n - e) for i in range(n + 1)]
    banded = []
    for point in curve:
        least = _mean(xs, above, point.k) + _times(worst, above[0] ** point.k)
        most = _mean(xs, below, point.k) + _times(best, 1 - below[n] ** point.k)
        low, high = sorted((sign * least, sign * most))
        banded.append(replace(point, low=low, high=high))
    return banded


def over_searches(curves: Sequence[Sequence[ExpectedBest]]) -> list[ExpectedBest]:
    """The mean of the curves of several searches, and from the lowest to the highest of them.

    Args:
        curves: of at least one search; points are given as far as all have them.
    """
    return [ExpectedBest(points[0].k, math.fsum(p.expected for p in points) / len(points),
                         min(p.expected for p in points), max(p.expected for p in points))
            for points in zip(*curves, strict=False)]


def _ordered(scores: Sequence[float | None], higher_is_better: bool, nothing: float
             ) -> tuple[list[float], float]:
    """The scores from worst to best, turned so that more is better, and the sign that turns them."""
    if any(score is not None and not math.isfinite(score) for score in scores):
        raise ValueError("scores are finite numbers, or None")
    sign = 1.0 if higher_is_better else -1.0
    return sorted(nothing if score is None else sign * score for score in scores), sign


def _mean(xs: Sequence[float], reached: Sequence[float], k: int) -> float:
    """The part of the mean of F^k that lies on the scores, `reached` being F before and at each."""
    return math.fsum(_times(x, reached[i + 1] ** k - reached[i] ** k) for i, x in enumerate(xs))


def _times(value: float, share: float) -> float:
    """Their product, where nothing of what has no end is nothing."""
    return value * share if share > 0 else 0.0


def _weights(n: int, k: int) -> Iterator[float]:
    """C(i-1, k-1) / C(n, k) for i = n, n-1, ..., k, each from the one before, all at most 1."""
    weight = k / n
    for i in range(n, k - 1, -1):
        yield weight
        if i > 1:
            weight *= (i - k) / (i - 1)
