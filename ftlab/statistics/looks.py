"""Looks at a study while it runs: the level of each, so that all of them together keep theirs.

Whoever tests after every seed and stops at the first p-value below 5% claims in a quarter of all
studies what is not so. With at most N seeds the look at n of them gets the level a c (n/N)^2: little
at first, most at the end (an error-spending boundary: Lan, DeMets 1983,
https://doi.org/10.1093/biomet/70.3.659). c was found by simulation of Student's test after each
seed from the third on, so that the chance of any claim is a; a test set that all looks share makes
them more alike, which is safer, and so does a later first look.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache

import numpy as np

POWER = 2.0
"""The exponent of (n/N): between 1 and 2 the same is decided; a constant level decides less in the same time."""

PLACES = (1, 2, 3, 4, 6, 12, 36, 200)
"""Levels of the table below, as 0.05 / place: Holm's first step over so many comparisons."""
FACTORS: Mapping[int, tuple[float, ...]] = {
    3: (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
    4: (0.745, 0.724, 0.710, 0.703, 0.695, 0.681, 0.666, 0.650),
    5: (0.650, 0.618, 0.603, 0.591, 0.577, 0.560, 0.545, 0.515),
    6: (0.597, 0.566, 0.551, 0.542, 0.529, 0.512, 0.492, 0.470),
    8: (0.541, 0.505, 0.488, 0.475, 0.462, 0.437, 0.410, 0.385),
    10: (0.509, 0.471, 0.455, 0.443, 0.425, 0.397, 0.350, 0.325),
    15: (0.472, 0.434, 0.416, 0.404, 0.390, 0.364, 0.320, 0.285),
    20: (0.456, 0.414, 0.394, 0.383, 0.365, 0.334, 0.288, 0.260),
    30: (0.435, 0.394, 0.376, 0.362, 0.342, 0.317, 0.275, 0.235),
    50: (0.418, 0.379, 0.359, 0.347, 0.331, 0.308, 0.270, 0.230),
    100: (0.405, 0.365, 0.343, 0.331, 0.312, 0.287, 0.245, 0.215),
    200: (0.387, 0.346, 0.327, 0.315, 0.297, 0.277, 0.240, 0.195),
}
"""c by N and level, from 400,000 to 2,000,000 simulated studies a row, rounded down in the tails."""
MOST = max(FACTORS)
"""Seeds that a study may have at most."""


def nominal(level: float, seeds: int, most: int) -> float:
    """Level of the look at so many seeds, for the chance `level` of a claim in any look.

    Args:
        level: of all looks together, at most 0.05.
        seeds: at this look.
        most: seeds at the last look.
    """
    levels, spent = _boundary(most)
    return _interpolated(level, levels, spent) * (seeds / most) ** POWER


def anytime(p_values: Mapping[int, float], most: int) -> float:
    """P-value that holds whenever one stops: the least level at which any look so far claims.

    Args:
        p_values: of each look, by its number of seeds.
        most: seeds at the last look.
    """
    least = min((p / (seeds / most) ** POWER for seeds, p in p_values.items()), default=math.inf)
    levels, spent = _boundary(most)
    return min(1.0, _interpolated(least, spent, levels)) if math.isfinite(least) else 1.0


@cache
def _boundary(most: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Levels, and what of each the look at `most` seeds gets, both growing."""
    known = sorted(FACTORS)
    rows = np.array([FACTORS[n] for n in known])
    factors = [float(np.interp(math.log(most), np.log(known), column)) for column in rows.T]
    levels = [0.05 / place for place in PLACES]
    spent = [level * factor for level, factor in zip(levels, factors, strict=True)]
    return tuple(reversed(levels)), tuple(reversed(spent))


def _interpolated(x: float, at: tuple[float, ...], values: tuple[float, ...]) -> float:
    """Piecewise power law through points; beyond them in proportion."""
    if x <= at[0]:
        return x * values[0] / at[0]
    if x >= at[-1]:
        return x * values[-1] / at[-1]
    return math.exp(float(np.interp(math.log(x), np.log(at), np.log(values))))
