"""The smallest difference that so many seeds would find."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

POWER = 0.8


@dataclass(frozen=True)
class Noise:
    """Variance of the difference of two techniques, the mean over all pairs of a study.

    Attributes:
        seeds: of the difference from one seed to the next; with n seeds a mean has an nth of it.
        examples: of the difference with any number of seeds, for the draw of the test set; 0 where
            examples are not known.
        count: test examples; 0 likewise.
    """

    seeds: float
    examples: float = 0.0
    count: int = 0


def noise(values: NDArray[np.float64]) -> Noise:
    """Estimate the noise of a study's techniques.

    The mean squares are those of `paired.over_both`, pooled before their difference is taken: the
    mean over pairs of (x_a - x_b)^2 is twice the variance over techniques.

    Args:
        values: of at least two techniques and two seeds: (K, S), or (K, S, E) with what each of
            E test examples adds.
    """
    techniques, seeds = values.shape[:2]
    apart = values - values.mean(axis=0)
    if values.ndim == 2:
        return Noise(float(2 * apart.var(axis=1, ddof=1).sum() / (techniques - 1)))
    examples = values.shape[2]
    by_seed, by_example = apart.mean(axis=2), apart.mean(axis=1)
    whole = by_seed.mean(axis=1)
    rest = apart - by_seed[:, :, None] - by_example[:, None, :] + whole[:, None, None]
    pairs = 2 / (techniques - 1)
    of_seeds = pairs * float(by_seed.var(axis=1, ddof=1).sum())
    of_examples = pairs * float(by_example.var(axis=1, ddof=1).sum()) / examples
    of_rest = pairs * float((rest**2).sum()) / ((seeds - 1) * (examples - 1)) / examples
    return Noise(max(of_seeds, of_rest), max(of_examples - of_rest / seeds, 0.0), examples)


def smallest_found(seen: Noise, seeds: float, level: float, power: float = POWER) -> float:
    """The smallest difference that so many seeds would find in so many of all studies.

    Where seeds or examples alone vary it is that of Student's test over them (noncentral t, Cohen
    1988, chapter 2); between the two, the root of the sum of both squares, which
    `paired.over_both` finds a little more often. So does a test that borrows variance.

    Args:
        seen: the noise of a pair.
        seeds: at least two; inf for what this test set allows at all.
        level: of the test, two-sided: with Holm's correction that of its first step.
        power: share of studies.
    """
    of_seeds = 0.0 if math.isinf(seeds) else seen.seeds * _reach(seeds - 1, level, power)**2 / seeds
    of_examples = seen.examples * _reach(seen.count - 1, level, power)**2 if seen.examples else 0.0
    return math.sqrt(of_seeds + of_examples)


def _reach(freedom: float, level: float, power: float) -> float:
    """Distance in standard errors that Student's t test finds so often."""
    limit = float(stats.t.ppf(1 - level / 2, freedom))
    # with the largest standard error of so many studies a tenth of what is missing is left
    end = limit * math.sqrt(float(stats.chi2.ppf(1 - (1 - power) / 10, freedom)) / freedom) + 10
    return float(optimize.brentq(
        lambda distance: float(stats.nct.sf(limit, freedom, distance)) - power, 0.0, end))
