"""Difference of two techniques with all that its error consists of, before any decision."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from ftlab.statistics.clusters import units

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Evidence:
    """Difference of two metrics' means, its variance by source, and the law of its error.

    The error follows Student's law, or, with `errors`, a mixture of normal laws over what the
    variance may be (`paired.over_both`).

    Attributes:
        difference: of the means, in the metric's own unit.
        by_seeds: variance of the difference through the seeds; shrinks with their number.
        by_examples: variance through the test examples; no number of seeds makes it smaller.
        freedom: degrees of freedom of the sum.
        seeds, examples: how many of each; clusters count as examples.
        test: the name of the test that weighs it.
        errors, weights: possible standard errors and their weights; empty for Student's law.
        clustered: number of examples that `examples` are clusters of; 0 where they are examples.
    """

    difference: float
    by_seeds: float
    by_examples: float
    freedom: float
    seeds: int
    examples: int
    test: str
    errors: Array = field(default_factory=lambda: np.empty(0), repr=False, compare=False)
    weights: Array = field(default_factory=lambda: np.empty(0), repr=False, compare=False)
    clustered: int = 0

    def of_clusters(self, clustered: int) -> Evidence:
        """The same, of tables whose columns are clusters of so many examples; 0 where they are examples."""
        if not clustered or not self.examples:
            return self
        return replace(self, test=self.test.replace("examples", "clusters"), clustered=clustered)

    @property
    def units(self) -> str:
        """`444 examples`, or `88 clusters of 444 examples`."""
        return units(self.examples, self.clustered)

    @property
    def error(self) -> float:
        """Standard error of the difference."""
        return math.sqrt(self.by_seeds + self.by_examples)

    def beyond(self, distance: float) -> float:
        """One-sided probability of an error of at least a distance."""
        if len(self.errors):
            if self.errors.max() == 0:
                return 0.5 if distance == 0 else float(distance < 0)
            # 1e-300: an error of zero among others
            return float(self.weights @ special.ndtr(-distance / np.maximum(self.errors, 1e-300)))
        if self.error == 0:
            return 0.5 if distance == 0 else float(distance < 0)
        return float(stats.t.sf(distance / self.error, self.freedom))

    def reach(self, level: float) -> float:
        """Distance that the error exceeds, to one side, with the probability `level` (below 1/2)."""
        if not len(self.errors):
            return float(stats.t.isf(level, self.freedom)) * self.error
        widest = float(self.errors.max())
        if widest == 0:
            return 0.0
        # `beyond` falls with the distance; past the widest error's own reach it is low enough
        end = 1.01 * widest * float(-special.ndtri(level))
        return float(optimize.brentq(lambda distance: self.beyond(distance) - level, 0.0, end))

    @property
    def p_differs(self) -> float:
        """Two-sided p-value of no difference."""
        return min(1.0, 2 * self.beyond(abs(self.difference)))

    def p_equal(self, margin: float) -> float:
        """P-value of a difference of the margin or more, the larger of two one-sided ones.

        Schuirmann (1987), https://doi.org/10.1007/BF01068419.
        """
        return self.beyond(margin - abs(self.difference))

    def interval(self, level: float) -> tuple[float, float]:
        """Two-sided interval that misses the difference with the probability `level`."""
        half = self.reach(level / 2)
        return self.difference - half, self.difference + half

    def equal_within(self, level: float) -> float:
        """Smallest margin within which the two are shown to be equal at a level."""
        return abs(self.difference) + self.reach(level)
