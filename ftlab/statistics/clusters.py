"""Clusters of examples that belong together: one speaker, one patient, one document, exact duplicates.

Examples of a cluster are right and wrong together, so that tests which take them for independent
claim too much. Here the clusters become the units of a table, and every test of tables is one over clusters.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]

CLUSTER = "cluster"
"""The column of a data set that names each example's cluster, and that of prediction records with its number."""


def by_cluster(table: Array, clusters: Sequence[Hashable]) -> Array:
    """Values of clusters (S, C) whose mean is that of the examples (S, E), row by row.

    The mean over examples is a ratio, the clusters' sums over their sizes, whose linearisation
    is z_c = m + (n_c / n) (m_c - m), with m the row's mean, n_c and m_c the size and mean of cluster c,
    and n the mean size: the variance of z over C is that of the ratio estimator (Cochran 1977, Sampling
    Techniques, 3rd edition, sections 2.11 and 9A; Woodruff 1971, Journal of the American Statistical
    Association 66, 411-414). Clusters of equal size have their means.

    Args:
        table: a value per seed and example.
        clusters: name of each example's cluster (E,).

    Returns:
        Clusters in the order in which they first appear.
    """
    place = _places(clusters)
    order, sizes = np.argsort(place, kind="stable"), np.bincount(place)
    sums = np.add.reduceat(table[:, order], np.cumsum(sizes) - sizes, axis=1)
    if (sizes == sizes[0]).all():
        means: Array = sums / sizes
        return means
    whole = table.mean(axis=1, keepdims=True)
    linear: Array = whole + sizes / sizes.mean() * (sums / sizes - whole)
    return linear


def units(count: int, clustered: int, examples: str = "examples") -> str:
    """`444 examples`, or `88 clusters of 444 examples`.

    Args:
        count: of the units of a test.
        clustered: number of examples that these are clusters of; 0 where they are examples.
        examples: their name.
    """
    return f"{count:,} clusters of {clustered:,} {examples}" if clustered else f"{count:,} {examples}"


def effective_size(values: Sequence[float] | Array, clusters: Sequence[Hashable] | None,
                   confidence: float = 0.95) -> float:
    """How many independent examples say as much of a mean as these do, in clusters.

    The number of examples over the design effect (Kish 1965, Survey Sampling), which is the variance of the mean
    over clusters by that over examples and counted as 1 at least, times the ratio of Student's quantiles squared,
    since few clusters say little of it (Korn, Graubard 1998, Survey Methodology 24; as in
    https://pmc.ncbi.nlm.nih.gov/articles/PMC6896998). Where all values are equal nothing is known of the effect,
    and each cluster counts once.

    Args:
        values: of the examples.
        clusters: of each example; None where each is one by itself.
        confidence: of the interval that is made of it.

    Returns:
        0 where all are in one cluster.
    """
    count = len(values)
    if clusters is None or len(units := _places(clusters)) == 0 or units.max() + 1 == count:
        return float(count)
    z = by_cluster(np.asarray(values, dtype=np.float64)[None], clusters)[0]
    if len(z) < 2:
        return 0.0
    alone, together = float(np.var(values, ddof=1)) / count, float(z.var(ddof=1)) / len(z)
    size = count / max(1.0, together / alone) if alone > 0 else float(len(z))
    tail = 0.5 + confidence / 2
    few: float = (stats.t.ppf(tail, count - 1) / stats.t.ppf(tail, len(z) - 1)) ** 2
    return size * few


def _places(clusters: Sequence[Hashable]) -> NDArray[np.int64]:
    """The number of each example's cluster (E,), in the order in which they first appear."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    return np.array([numbers[name] for name in clusters], dtype=np.int64)
