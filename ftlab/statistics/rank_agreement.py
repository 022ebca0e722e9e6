"""The agreement of two orders of a few things, and what it can be by chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice, permutations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]
FEWEST = 3  # things, of which two have only two orders
DRAWS = 1000
MOST = 6  # things, whose orders are all looked at


@dataclass(frozen=True)
class Agreement:
    """Two orders of the same things.

    Attributes:
        tau: weighted Kendall's tau, 1 for equal orders and -1 for opposite ones; nan for fewer
            than three things, or where one side has all of them equal.
        low, high: bootstrap interval over the things; nan where tau is, and where every draw
            has the same tau, so that it would say nothing of how sure tau is.
        chance: the absolute tau that 95% of random orders of so many things do not exceed.
        things: how many.
    """

    tau: float
    low: float
    high: float
    chance: float
    things: int


def agreement(foretold: Sequence[float], seen: Sequence[float],
              confidence: float = 0.95) -> Agreement:
    """Compare two orders by weighted tau (Vigna 2015), https://arxiv.org/abs/1404.3325.

    A change of places among the best costs more than one among the worst: weights are hyperbolic,
    and the mean of those by either order (scipy's `weightedtau`). The interval is the percentile
    bootstrap (Efron 1979) over the things; with a handful of them it is too narrow.

    Args:
        foretold: one number a thing, more is better.
        seen: likewise.
        confidence: of the interval, and of `chance`.
    """
    # ten digits: what rounding alone tells apart is equal
    a, b = (np.array([float(f"{value:.10g}") for value in side]) for side in (foretold, seen))
    if len(a) < FEWEST or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return Agreement(math.nan, math.nan, math.nan, math.nan, len(a))
    tau, generator = _tau(a, b), np.random.default_rng(0)
    drawn = np.sort(generator.integers(0, len(a), (DRAWS, len(a))), axis=1)
    kinds, times = np.unique(drawn, axis=0, return_counts=True)  # a handful has few
    taus = np.repeat([_tau(a[chosen], b[chosen]) for chosen in kinds], times)
    taus = taus[np.isfinite(taus)]
    low, high = math.nan, math.nan
    if math.isfinite(tau) and len(taus) and float(np.ptp(taus)) > 1e-9:
        low, high = np.quantile(taus, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()
    return Agreement(tau, low, high, by_chance(len(a), confidence), len(a))


@cache
def by_chance(things: int, confidence: float = 0.95) -> float:
    """The absolute weighted tau that a share of random orders does not exceed; nan below three."""
    if things < FEWEST:
        return math.nan
    places = np.arange(things, dtype=np.float64)
    generator = np.random.default_rng(0)
    orders = (permutations(places) if things <= MOST else
              (generator.permutation(places) for _ in range(DRAWS)))
    taus = [abs(_tau(places, np.array(order))) for order in islice(orders, DRAWS)]
    return float(np.quantile(taus, confidence, method="inverted_cdf"))


def _tau(a: Array, b: Array) -> float:
    """Weighted tau; nan where a side has all things equal."""
    if (a == a[0]).all() or (b == b[0]).all():
        return math.nan
    return float(stats.weightedtau(a, b).statistic)
