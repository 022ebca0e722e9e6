"""Is one technique better than another? Paired tests over examples, over seeds, and over both.

What is tested is a table of differences (S, E): for seed s and test example e, what technique a
scores there less what b scores. Its mean is the difference of their metrics. Where examples belong
together the columns are their clusters (`clusters.by_cluster`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ftlab.statistics.clusters import units
from ftlab.statistics.evidence import Evidence
from ftlab.statistics.overlap import inflation
from ftlab.statistics.seed_summary import Range

Array = NDArray[np.float64]

OVER_BOTH = "t test over seeds and examples"
OVER_SEEDS = "t test over seeds"
DRAWS = 9999
"""Bootstrap draws: the smallest p-value is 1 / (DRAWS + 1)."""


@dataclass(frozen=True)
class PairedResult:
    """A difference of two techniques, and how sure it is.

    Attributes:
        difference: of their means, in the metric's own unit; positive where a's number is higher.
        low, high: its 95% confidence interval; nan where nothing can be said.
        p: two-sided p-value of no difference; nan likewise.
        effect: Cohen's d of paired values, the difference in units of its own standard deviation
            over examples (over seeds where no examples are known); nan where that is zero.
        seeds, examples: how many of each the two have in common; clusters count as examples.
        test: what was done, by name.
        clustered: number of examples that `examples` are clusters of; 0 where they are examples.
    """

    difference: float
    low: float
    high: float
    p: float
    effect: float
    seeds: int
    examples: int
    test: str
    clustered: int = 0

    @property
    def units(self) -> str:
        """`444 examples`, or `88 clusters of 444 examples`."""
        return units(self.examples, self.clustered)

    def within(self, limits: Range) -> PairedResult:
        """The same, its interval cut where a difference of two such metrics ends (+-1 of shares).

        Args:
            limits: of the metric.
        """
        low, high = limits
        most = high - low
        if not abs(self.difference) <= most:  # a range that was promised in vain
            return self
        return replace(self, low=max(self.low, -most), high=min(self.high, most))


def over_both(table: Array, confidence: float = 0.95, overlap: float = 0.0) -> PairedResult:
    """Seeds and examples both drawn at random: would other seeds and another test set agree?

    Args:
        table: differences (S, E) of at least two seeds and two examples.
        confidence: of the interval.
        overlap: see `overlap.inflation`.
    """
    return result(of_two(table, overlap=overlap), table.mean(axis=0), 1 - confidence)


def of_two(table: Array, difference: float | None = None, overlap: float = 0.0) -> Evidence:
    """Difference of two techniques with the law of its error, seeds and examples both random.

    The variance of the mean of a table with random rows and columns is
    (MS_s + max(MS_e - MS_se, 0)) / (S E), as for readers and cases in diagnostic studies: Dorfman,
    Berbaum, Metz (1992), https://doi.org/10.1097/00004424-199209000-00015. With few seeds MS_s is
    hardly known. Instead of degrees of freedom between the two, which make too many claims in the
    tails that Holm's correction asks for, the p-value is the mean over what the variance of seeds
    may be, MS_s (S-1) / chi2(S-1), and so is that of examples (Tsui, Weerahandi 1989,
    https://doi.org/10.1080/01621459.1989.10478810): Student's test over seeds where the examples
    add nothing, Student's over examples where the seeds add nothing.

    MS_s is at least MS_se in expectation, and with few seeds by chance often far below it (three
    equal counts of hits make it zero), so that no possible variance is below MS_se / (S E), which
    a great many residuals estimate.

    Args:
        table: differences (S, E) of at least two seeds and two examples.
        difference: of the numbers that are printed, where the table's mean is another: the
            contributions of examples to a ratio are corrected for bias.
        overlap: see `overlap.inflation`.
    """
    seeds, examples = table.shape
    mean = float(table.mean())
    by_seed, by_example = table.mean(axis=1), table.mean(axis=0)
    rest = table - by_seed[:, None] - by_example[None, :] + mean
    of_seeds = examples * float(by_seed.var(ddof=1))
    of_rest = float((rest**2).sum()) / ((seeds - 1) * (examples - 1))
    # were a single example to say nothing, the mean would be another by its share of one in E
    least = seeds * mean**2 / examples
    of_examples = max(seeds * float(by_example.var(ddof=1)) - of_rest, least)
    times, weights = _inverse_chi_square(seeds - 1)
    often, heavy = _inverse_chi_square(examples - 1)
    cells, larger = seeds * examples, inflation(overlap, seeds)
    by_seeds = larger * np.maximum(of_seeds * times, of_rest)
    errors = np.sqrt(np.add.outer(by_seeds, of_examples * often) / cells)
    return Evidence(mean if difference is None else difference,
                    larger * max(of_seeds, of_rest) / cells, of_examples / cells, seeds - 1, seeds, examples, OVER_BOTH,
                    errors.ravel(), np.outer(weights, heavy).ravel())


def result(found: Evidence, values: Array, level: float = 0.05) -> PairedResult:
    """A test's result.

    Args:
        found: the difference and the law of its error.
        values: differences of examples, or of seeds, for the effect's size.
        level: chance that the interval misses.
    """
    return PairedResult(found.difference, *found.interval(level), found.p_differs,
                        _effect(found.difference, values), found.seeds, found.examples, found.test,
                        found.clustered)


@cache
def _inverse_chi_square(freedom: int) -> tuple[Array, Array]:
    """Values of freedom / chi2(freedom) and their weights, to integrate over its distribution.

    Gauss and Legendre's points in the cube root of the probability, which is dense where chi2
    is small: p-values down to 1e-3 come out right to three digits with one degree of freedom.
    """
    places, weights = np.polynomial.legendre.leggauss(32 if freedom < 30 else 8)
    root = (places + 1) / 2
    values: Array = freedom / stats.chi2.ppf(root**3, freedom)
    return values, 3 * root**2 * weights / 2


def over_seeds(a: Sequence[float], b: Sequence[float], resolution: float,
               confidence: float = 0.95, overlap: float = 0.0) -> PairedResult:
    """Student's paired t test of the metrics of the same seeds (Student 1908).

    Args:
        a: one number per seed, at least two.
        b: likewise, of the same seeds.
        resolution: least standard deviation of the differences, from `two_studies.step`.
        confidence: of the interval.
        overlap: see `overlap.inflation`.
    """
    found = of_seeds(a, b, resolution, overlap)
    spread = math.sqrt(found.by_seeds * found.seeds / inflation(overlap, found.seeds))
    effect = found.difference / spread if spread > 0 else math.nan
    return replace(result(found, np.zeros(1), 1 - confidence), effect=effect)


def of_seeds(a: Sequence[float], b: Sequence[float], resolution: float,
             overlap: float = 0.0) -> Evidence:
    """Difference of two techniques, seeds alone random; arguments as of `over_seeds`."""
    differences = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    n = len(differences)
    spread = max(float(differences.std(ddof=1)), resolution)
    by_seeds = inflation(overlap, n) * spread**2 / n
    return Evidence(float(differences.mean()), by_seeds, 0.0, n - 1, n, 0, OVER_SEEDS)


def over_examples(table: Array, clustered: int = 0) -> PairedResult:
    """These trained models, on other examples: McNemar's test, or the paired bootstrap.

    With one seed and differences of -1, 0 and 1 it is McNemar's exact test (McNemar 1947), a
    binomial test of who alone is right; else a bootstrap over examples (Efron 1979): how often is
    the mean of a draw as far from the mean as that is from zero (Berg-Kirkpatrick, Burkett, Klein
    2012, https://aclanthology.org/D12-1091/; two-sided here)?

    Args:
        table: differences (S, E).
        clustered: number of examples where its columns are clusters of them; 0 where they are not.
    """
    seeds, examples = table.shape
    by_example = table.mean(axis=0)
    mean = float(by_example.mean())
    apart = np.abs(_drawn_means(by_example) - mean)
    half = float(np.quantile(apart, 0.95))
    if seeds == 1 and np.isin(table, (-1.0, 0.0, 1.0)).all():
        p, test = _mcnemar(by_example), "McNemar's exact test"
    else:
        beyond = int((apart >= abs(mean)).sum())
        p, test = (beyond + 1) / (DRAWS + 1), "paired bootstrap"
    return PairedResult(mean, mean - half, mean + half, p, _effect(mean, by_example), seeds, examples,
                        f"{test} over {'clusters' if clustered else 'examples'}", clustered)


def _mcnemar(difference: Array) -> float:
    wins, losses = int((difference > 0).sum()), int((difference < 0).sum())
    return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def _drawn_means(values: Array) -> Array:
    """Means of DRAWS samples with replacement (Efron 1979), the same draws for the same size."""
    generator = np.random.default_rng(0)
    size = len(values)
    draws = [generator.integers(0, size, (part, size), dtype=np.int32)
             for part in _parts(DRAWS, max(1, 2**22 // size))]
    return np.concatenate([values[chosen].mean(axis=1) for chosen in draws])


def _parts(whole: int, most: int) -> list[int]:
    return [most] * (whole // most) + [whole % most] * bool(whole % most)


def _effect(mean: float, values: Array) -> float:
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return mean / spread if spread > 0 else math.nan
