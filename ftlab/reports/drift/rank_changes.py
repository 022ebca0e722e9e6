"""How the ranking of techniques changed: Kendall's tau, and the pairs that changed places."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scipy import stats

from ftlab.reports.drift.read_results import ComparedStudy
from ftlab.statistics.multiple_testing import FEWEST, LEVEL, corrected, pairs
from ftlab.statistics.paired import over_seeds
from ftlab.statistics.two_studies import same, step


@dataclass(frozen=True)
class Swap:
    """Two techniques that changed places.

    Attributes:
        first: had the higher mean before, and has the lower one now.
        second: the other.
        p: that not both orders are real, corrected by Holm over all pairs of all groups; nan where
            a side has fewer than three seeds in common.
    """

    first: str
    second: str
    p: float

    @property
    def significant(self) -> bool:
        """True where the old order and the new one are both beyond noise."""
        return self.p <= LEVEL


@dataclass(frozen=True)
class RankChange:
    """The techniques of one backbone and data set, by one metric's means.

    Attributes:
        group: backbone and data set.
        tau: Kendall's tau-b of the two orders; nan where all are equal on a side.
        techniques: how many are on both sides.
        swaps: pairs that changed places; equal means on a side are no change.
    """

    group: tuple[str, str]
    tau: float
    techniques: int
    swaps: tuple[Swap, ...]


def orders(old: ComparedStudy, new: ComparedStudy, metric: str) -> list[RankChange]:
    """Compare the rankings of every backbone and data set with two techniques or more."""
    groups = list(dict.fromkeys(names[:2] for names in old.cells))
    made = [_order(old, new, group, metric) for group in groups]
    compared = [(order, tests) for order, tests in made if order.techniques > 1]
    # The pairs that swapped were found by looking, so that the family is all of them.
    adjusted = iter(corrected([p for _, tests in compared for p in tests.values()]))
    orders = []
    for order, tests in compared:
        p = {pair: next(adjusted) for pair in tests}
        swaps = [replace(s, p=p.get((s.first, s.second), p.get((s.second, s.first), math.nan)))
                 for s in order.swaps]
        orders.append(replace(order, swaps=tuple(swaps)))
    return orders


def _order(old: ComparedStudy, new: ComparedStudy, group: tuple[str, str], metric: str
           ) -> tuple[RankChange, dict[tuple[str, str], float]]:
    sides = []
    for side in (old, new):
        sides.append({names[2]: cell.values[metric] for names, cell in side.cells.items()
                      if names[:2] == group and cell.values.get(metric)})
    a, b = sides
    names = [name for name in a if name in b]
    before, after = ({n: math.fsum(s[n].values()) / len(s[n]) for n in names} for s in sides)
    tau = float(stats.kendalltau(list(before.values()), list(after.values())).statistic) \
        if len(names) > 1 else math.nan
    tests, swaps = {}, []
    least = step(value for side in sides for cell in side.values() for value in cell.values())
    for x, y in pairs(names):
        tests[x, y] = _both(least, a[x], a[y], b[x], b[y])
        was, now = (0.0 if same(m[x], m[y]) else m[x] - m[y] for m in (before, after))
        if was * now < 0:
            swaps.append(Swap(*((x, y) if was > 0 else (y, x)), math.nan))
    return RankChange(group, tau, len(names), tuple(swaps)), tests


def _both(least: float, *values: dict[int, float]) -> float:
    """The larger p-value of two paired tests over seeds, an intersection-union test.

    That both orders are real is claimed only where each is (Gail, Simon 1985,
    https://doi.org/10.2307/2530862, on effects that change their sign).
    """
    p_values = []
    for x, y in (values[:2], values[2:]):
        common = sorted(x.keys() & y.keys())
        if len(common) < FEWEST:
            return math.nan
        p_values.append(over_seeds([x[s] for s in common], [y[s] for s in common], least).p)
    return max(p_values)


def tau_of(orders: Sequence[RankChange]) -> float:
    """The mean over groups; nan where no group has one."""
    taus = [order.tau for order in orders if math.isfinite(order.tau)]
    return math.fsum(taus) / len(taus) if taus else math.nan
