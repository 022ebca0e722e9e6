"""Moderated t test: three and more techniques lend each other what their seeds say of the scatter.

With three seeds the variance of one pair has two degrees of freedom, and a study of seven
techniques holds fourteen. A technique's variance over seeds is therefore drawn towards the study's
mean, as if one more degree of freedom said that mean: a fixed and weak prior, where limma
estimates its own (Smyth 2004, https://doi.org/10.2202/1544-6115.1027), which with techniques that
scatter very differently makes too many claims. It is only ever raised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ftlab.statistics.evidence import Evidence
from ftlab.statistics.multiple_testing import Pair
from ftlab.statistics.overlap import inflation
from ftlab.statistics.paired import OVER_BOTH, OVER_SEEDS

Array = NDArray[np.float64]

PRIOR = 1.0
"""Degrees of freedom that the study's mean variance counts for."""
FEWEST_TECHNIQUES = 3
"""Below it there is nobody to borrow from: two techniques are compared by `paired.over_both`."""
MOST_CORRELATED = 0.9
CAUTION = 0.5
LEAST = 1e-18
"""Variance of a metric that is the same in every seed."""


@dataclass(frozen=True)
class SeedScores:
    """A technique's metric over seeds.

    Attributes:
        values: (S,), one per seed; the same seeds in the same order for all techniques.
        examples: (S, E), what each test example adds; None where the metric is not of examples.
        clustered: number of examples where columns of `examples` are clusters of them; 0 where they are not.
    """

    values: Array
    examples: Array | None = None
    clustered: int = 0

    def first(self, seeds: int) -> SeedScores:
        """The scores of the first seeds alone."""
        examples = None if self.examples is None else self.examples[:seeds]
        return SeedScores(self.values[:seeds], examples, self.clustered)

    def __len__(self) -> int:
        return len(self.values)


def variance(scores: SeedScores, resolution: float) -> float:
    """Variance of a technique's metric over seeds, at least what single examples alone give it.

    Args:
        scores: of at least two seeds.
        resolution: least standard deviation of a difference of two techniques, from
            `two_studies.step`, where no examples are known.
    """
    if scores.examples is None:
        least = resolution**2 / 2
    else:
        least = float(scores.examples.var(axis=0, ddof=1).mean()) / scores.examples.shape[1]
    return max(float(scores.values.var(ddof=1)), least, LEAST)


def correlation(study: Sequence[SeedScores]) -> float:
    """Correlation of techniques through the seed (the same head, the same batches): one for all pairs.

    Between 0 and 0.9 and shrunk by (S - 1) / S, so that it is rather too low. Cut at 0 it would be
    too high on average where there is no correlation; CAUTION of its standard error is taken off.
    Techniques with fewer seeds than the others say nothing of it.
    """
    seeds = max(map(len, study))
    table = np.array([scores.values for scores in study if len(scores) == seeds])
    apart = table - table.mean(axis=1, keepdims=True)
    products = apart @ apart.T
    sizes = np.sqrt(np.diagonal(products))
    together = float(products.sum() - np.trace(products))
    most = float(sizes.sum() ** 2 - (sizes**2).sum())
    if most <= 0:
        return 0.0
    pairs = len(table) * (len(table) - 1) / 2
    cautious = together / most - CAUTION / np.sqrt(pairs * (seeds - 1))
    return float(np.clip(cautious, 0.0, MOST_CORRELATED)) * (seeds - 1) / seeds


def evidence(study: Mapping[str, SeedScores], pairs: Sequence[Pair],
             resolution: float = 0.0, overlap: float = 0.0) -> dict[Pair, Evidence]:
    """Difference of each pair with its variance, from all techniques of a backbone and data set.

    Of technique k with S seeds, s_k^2 is its `variance`, and
    q_k = max(s_k^2, (mean_j s_j^2 + (S - 1) s_k^2) / S) with S - 1 + (1 - s_k^2 / sum_j s_j^2)
    degrees of freedom: what a technique gives to the mean itself says nothing new of it. A
    difference has the variance max((q_a + q_b - 2 r sqrt(q_a q_b)) / S, R) + B with one
    correlation r through the seed, R what the residuals of seeds and examples alone give it, and
    B what the examples add (see `paired.over_both`). Degrees of freedom of the sum by Satterthwaite
    (1946), https://doi.org/10.2307/3002019.

    Args:
        study: at least three techniques, of at least two seeds each.
        pairs: to be compared; of two that have unequal seeds the common first ones count.
        resolution: see `variance`.
        overlap: see `overlap.inflation`, the factor of what the seeds add.
    """
    variances = {name: variance(scores, resolution) for name, scores in study.items()}
    sum_of_all = sum(variances.values())
    mean = sum_of_all / len(variances)
    shared = correlation(list(study.values()))
    raised, freedoms = {}, {}
    for name, own in variances.items():
        freedom = len(study[name]) - 1
        raised[name] = max(own, (PRIOR * mean + freedom * own) / (PRIOR + freedom))
        freedoms[name] = freedom + PRIOR * (1 - own / sum_of_all)

    def of_pair(a: str, b: str) -> Evidence:
        seeds = min(len(study[a]), len(study[b]))
        first, second = study[a].first(seeds), study[b].first(seeds)
        difference = float(first.values.mean() - second.values.mean())
        least, by_examples, examples = resolution**2 / seeds, 0.0, 0
        if first.examples is not None and second.examples is not None:
            least, by_examples = sources(first.examples - second.examples)
            examples = first.examples.shape[1]
        larger = inflation(overlap, seeds)
        one, other = larger * raised[a] / seeds, larger * raised[b] / seeds
        by_seeds = max(one + other - 2 * shared * float(np.sqrt(one * other)), larger * least)
        parts = one**2 / freedoms[a] + other**2 / freedoms[b]
        if examples > 1:
            parts += by_examples**2 / (examples - 1)
        freedom = (one + other + by_examples) ** 2 / parts
        test = f"moderated {OVER_BOTH if examples else OVER_SEEDS}"
        return Evidence(difference, by_seeds, by_examples, freedom, seeds, examples, test)

    return {pair: of_pair(*pair) for pair in pairs}


def sources(table: Array) -> tuple[float, float]:
    """Least variance of a mean through the seeds, and its variance through the examples.

    Args:
        table: differences (S, E) of at least two seeds and two examples.

    Returns:
        MS_se / (S E), and (MS_e - MS_se) / (S E) or what a single example's worth of it is.
    """
    seeds, examples = table.shape
    mean = float(table.mean())
    by_seed, by_example = table.mean(axis=1), table.mean(axis=0)
    rest = table - by_seed[:, None] - by_example[None, :] + mean
    of_rest = float((rest**2).sum()) / ((seeds - 1) * (examples - 1))
    # were a single example to say nothing, the mean would be another by its share of one in E
    of_examples = max(seeds * float(by_example.var(ddof=1)) - of_rest, seeds * mean**2 / examples)
    return of_rest / (seeds * examples), of_examples / (seeds * examples)
