"""The smallest difference that so many seeds would find."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from scipy import optimize, stats

from ftlab.statistics.evidence import Evidence

POWER = 0.8


@dataclass(frozen=True)
class Noise:
    """Variance of the difference of two techniques, the mean over all pairs of a study.

    Attributes:
        seeds: of the difference from one seed to the next; with n seeds a mean has an nth of it.
        examples: of the difference with any number of seeds, for the draw of the test set; 0 where
            examples are not known.
        count: test examples, or clusters of them; 0 likewise.
        clustered: number of examples that are in clusters; 0 where each is one by itself.
    """

    seeds: float
    examples: float = 0.0
    count: int = 0
    clustered: int = 0


def noise(found: Collection[Evidence]) -> Noise:
    """The mean noise of pairs of techniques; where each variance was raised, a little too much."""
    count = len(found)
    return Noise(math.fsum(pair.by_seeds * pair.seeds for pair in found) / count,
                 math.fsum(pair.by_examples for pair in found) / count,
                 max(pair.examples for pair in found), max(pair.clustered for pair in found))


def smallest_found(seen: Noise, seeds: float, level: float, power: float = POWER) -> float:
    """The smallest difference that so many seeds would find in so many of all studies.

    Where seeds or examples alone vary it is that of Student's test over them (noncentral t, Cohen
    1988, chapter 2); between the two, the root of the sum of both squares, which
    `paired.over_both` finds a little more often. `moderated` finds it more often still, since more
    seeds than those of the pair say how much it scatters.

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
