from __future__ import annotations

import numpy as np

from ftlab.statistics.seed_summary import Range
from ftlab.statistics.transferability.base import Array, Codes, Score, centred
from ftlab.statistics.transferability.dummy_labels import expected_likelihood
from ftlab.statistics.transferability.mixture import fitted_posterior, starting_groups

KEPT = 0.8  # of the variance
COMPONENTS = 5  # for each class
SEEDS = range(5)


class NLEEP(Score):
    """LEEP without a classifier: a normal mixture's components stand for the checkpoint's classes.

    Li, Jia, Sang, Zhu, Green, Wang, Gong (2021), https://arxiv.org/abs/2011.11200: principal
    components with 80% of the variance, 5 components of the mixture for each class. Mixtures start
    at random: it is the mean of 5 seeds. The order of examples says nothing.
    """

    name = "NLEEP"

    def measure(self, rows: Array, labels: Codes) -> float:
        directions = principal(rows)
        order = np.argsort((directions**2).sum(axis=1), kind="stable")
        directions, labels = directions[order], labels[order]
        components = min(COMPONENTS * (int(labels.max()) + 1), len(labels))
        starts = (starting_groups(directions, components, seed) for seed in SEEDS)
        return float(np.mean([expected_likelihood(fitted_posterior(directions, start), labels)
                              for start in starts]))

    def limits(self, width: int, classes: int) -> Range:
        return -np.inf, 0.0


def principal(rows: Array) -> Array:
    """The principal components that hold 80% of the variance, at least one (N, K)."""
    left, values, _ = np.linalg.svd(centred(rows), full_matrices=False)
    whole = (values**2).sum()
    if whole == 0:
        return np.zeros((len(rows), 1))
    shares = np.cumsum(values**2) / whole
    kept = int(np.searchsorted(shares, KEPT, side="right")) + 1
    return (left * values)[:, :kept]
