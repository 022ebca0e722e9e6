"""The bootstrap interval of a mean over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

FEWEST = 2  # values from which an interval is said


def bootstrap_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Bias-corrected and accelerated bootstrap interval of the mean (Efron 1987).

    With few seeds it is too narrow (two give at most the range between them): Student's interval
    is the one to quote below ten.

    Args:
        values: one a seed.
        confidence: of the interval.

    Returns:
        nan, nan below two values; both the value where all are equal.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if len(numbers) < FEWEST or not np.isfinite(numbers).all():
        return math.nan, math.nan
    if (numbers == numbers[0]).all():
        return float(numbers[0]), float(numbers[0])
    interval = stats.bootstrap(
        (numbers,), np.mean, confidence_level=confidence, method="BCa",
        rng=np.random.default_rng(0), vectorized=True).confidence_interval
    return float(interval.low), float(interval.high)
