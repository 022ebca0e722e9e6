"""Tests of a change between two studies against the scatter of their seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import pairwise

import numpy as np
from scipy import stats

from ftlab.statistics.multiple_testing import FEWEST
from ftlab.statistics.paired import PairedResult

ROUNDING = 1e-6
"""Relative difference below which two numbers are one: metrics come as float32."""
NEGLIGIBLE = 1e-4
"""Seeds are never taken to scatter by less than this share of the value: what another processor or
library rounds otherwise is the same in every seed, and no drift."""


def same(a: float, b: float) -> bool:
    """Return whether two numbers differ by rounding at most."""
    return math.isclose(a, b, rel_tol=ROUNDING, abs_tol=1e-12)


def step(values: Iterable[float]) -> float:
    """The smallest difference between any two of the values, rounding aside; 0 where all are one.

    An accuracy over 444 examples moves in steps of 1/444. Without such a least scatter three
    seeds that each lose one example would be a shift without any variance, found in one of
    fourteen studies in which single examples change at random.
    """
    ordered = sorted(value for value in values if math.isfinite(value))
    gaps = [b - a for a, b in pairwise(ordered) if not same(a, b)]
    return min(gaps, default=0.0)


def moved(old: Mapping[int, float], new: Mapping[int, float], resolution: float = 0.0,
          confidence: float = 0.95) -> PairedResult | None:
    """Test whether the mean over seeds has changed.

    Where both have the same seeds, Student's paired t test (Student 1908): a seed that draws the
    same as before takes its luck out. Else Welch's (1947, https://doi.org/10.1093/biomet/34.1-2.28).

    Args:
        old: by seed.
        new: likewise.
        resolution: least standard deviation over seeds, from `step`.
        confidence: of the interval.

    Returns:
        The difference new - old; None where a side has fewer than three seeds. Its effect is in
        units of the pooled standard deviation over seeds (Cohen's d), in either test.
    """
    if min(len(old), len(new)) < FEWEST:
        return None
    a, b = (np.array([side[seed] for seed in sorted(side)]) for side in (old, new))
    mean = float(b.mean() - a.mean())
    least = max(resolution, NEGLIGIBLE * max(abs(float(a.mean())), abs(float(b.mean()))))
    spread_a, spread_b = (max(float(side.std(ddof=1)), least) for side in (a, b))
    if old.keys() == new.keys():
        spread = max(float((b - a).std(ddof=1)), least)
        error, freedom = spread / math.sqrt(len(a)), float(len(a) - 1)
        name = "paired t test over seeds"
    else:
        parts = spread_a**2 / len(a), spread_b**2 / len(b)
        error = math.sqrt(sum(parts))
        freedom = sum(parts) ** 2 / (parts[0] ** 2 / (len(a) - 1) + parts[1] ** 2 / (len(b) - 1)) \
            if error else 1.0
        name = "Welch's t test over seeds"
    if error == 0:  # zero on both sides: nothing to test
        return PairedResult(mean, mean, mean, 1.0, math.nan, len(a), 0, name)
    half = float(stats.t.ppf(0.5 + confidence / 2, freedom)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, freedom))
    pooled = math.sqrt(((len(a) - 1) * spread_a**2 + (len(b) - 1) * spread_b**2)
                       / (len(a) + len(b) - 2))
    return PairedResult(mean, mean - half, mean + half, p, mean / pooled, min(len(a), len(b)), 0, name)
