"""The best of k trials: its expectation and interval, exactly, from the scores of n trials."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

OUTER = Fraction(1, 20)  # of the orders lies beyond each end of the interval


@dataclass(frozen=True)
class ExpectedBest:
    """The best score of the first k trials, over all orders of the n trials.

    Attributes:
        k: trials spent.
        expected: mean over the orders; not finite while all k may be trials without a score.
        low, high: 5% and 95% quantiles over the orders, the smaller number first; the worse of
            the two is not finite where more than a twentieth of the orders has no score yet.
    """

    k: int
    expected: float
    low: float
    high: float


def budget_curve(scores: Sequence[float | None], higher_is_better: bool = True) -> list[ExpectedBest]:
    """The best of the first k of n trials in random order, for k = 1 ... n.

    With the scores sorted from worst to best as x_1 ... x_n, the best of k drawn without
    replacement is x_i with probability C(i-1, k-1) / C(n, k), and not above x_i with probability
    C(i, k) / C(n, k). Nothing is simulated. A quantile is the smallest x_i that is reached with
    at least its probability.

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
    if any(score is not None and not math.isfinite(score) for score in scores):
        raise ValueError("scores are finite numbers, or None")
    sign = 1.0 if higher_is_better else -1.0
    ordered = sorted(-math.inf if score is None else sign * score for score in scores)
    return [_best(ordered, k, sign) for k in range(1, len(ordered) + 1)]


def _best(ordered: Sequence[float], k: int, sign: float) -> ExpectedBest:
    expected = math.fsum(w * x for w, x in zip(_weights(len(ordered), k), reversed(ordered),
                                               strict=False))
    worse, better = (ordered[_rank(len(ordered), k, q) - 1] for q in (OUTER, 1 - OUTER))
    low, high = sorted((sign * worse, sign * better))
    return ExpectedBest(k, sign * expected, low, high)


def _weights(n: int, k: int) -> Iterator[float]:
    """C(i-1, k-1) / C(n, k) for i = n, n-1, ..., k, each from the one before, all at most 1."""
    weight = k / n
    for i in range(n, k - 1, -1):
        yield weight
        if i > 1:
            weight *= (i - k) / (i - 1)


def _rank(n: int, k: int, quantile: Fraction) -> int:
    """The smallest i with C(i, k) / C(n, k) >= quantile; in whole numbers, so that ties are exact."""
    wanted = math.ceil(quantile * math.comb(n, k))
    return bisect_left(range(n + 1), wanted, key=lambda i: math.comb(i, k))
