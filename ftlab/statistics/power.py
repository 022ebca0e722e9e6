"""How many seeds a paired test needs."""

from __future__ import annotations

import math

from scipy import stats

from ftlab.statistics.multiple_testing import FEWEST
from ftlab.statistics.paired import PairedResult

POWER = 0.8
MOST = 200
"""Seeds beyond which nobody goes."""


def needed(seen: PairedResult, level: float, power: float = POWER) -> int | None:
    """Seeds with which a paired t test would find a difference like the observed one.

    By the noncentral t distribution (Cohen 1988, chapter 2); None where there is no difference,
    `MOST` + 1 for more than that.

    Args:
        seen: the test over seeds, with its effect.
        level: of the test, two-sided.
        power: chance to find it.
    """
    if seen.difference == 0:
        return None
    for count in range(FEWEST, MOST + 1):
        limit = float(stats.t.ppf(1 - level / 2, count - 1))
        shift = abs(seen.effect) * math.sqrt(count)
        if float(stats.nct.sf(limit, count - 1, shift)) >= power:
            return count
    return MOST + 1
