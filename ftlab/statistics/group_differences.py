"""Differences between groups of examples in how a classifier treats them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Values = Sequence[Any] | NDArray[Any]


def wilson(share: float, count: float, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a share of independent examples.

    Wilson (1927), https://doi.org/10.1080/01621459.1927.10502953. A share that is a mean over seeds
    of the same examples varies less than one of 0s and 1s, so that the interval is wide enough.

    Args:
        share: from 0 to 1.
        count: of examples, above 0; of clusters `clusters.effective_size`.
        confidence: of the interval.
    """
    z2 = float(stats.norm.ppf(0.5 + confidence / 2)) ** 2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = math.sqrt(z2 * (share * (1 - share) / count + z2 / (4 * count**2))) / (1 + z2 / count)
    return max(0.0, centre - half), min(1.0, centre + half)


def demographic_parity_difference(predictions: Values, groups: Values) -> float:
    """Largest difference between two groups in how often a class is predicted, from 0 to 1.

    Of two classes it is that of either. Agarwal, Beygelzimer, Dudik, Langford, Wallach (2018),
    https://arxiv.org/abs/1803.02453

    Args:
        predictions: class of each example.
        groups: group of each example.
    """
    return _widest(predictions, groups, [np.ones(len(groups), dtype=bool)])


def equalized_odds_difference(
    targets: Values, predictions: Values, groups: Values
) -> float:
    """Largest difference between two groups in how often a class is predicted for one true class.

    From 0 to 1; of two classes the larger of the differences in true and in false positive rate.
    Groups without an example of a class are left out for it. Hardt, Price, Srebro (2016),
    https://arxiv.org/abs/1610.02413

    Args:
        targets: true class of each example.
        predictions: class that is predicted.
        groups: group of each example.
    """
    of_class = np.asarray(targets)
    return _widest(predictions, groups, [of_class == name for name in np.unique(of_class)])


def _widest(predictions: Values, groups: Values, among: list[NDArray[np.bool_]]
            ) -> float:
    predicted, of_group = np.asarray(predictions), np.asarray(groups)
    widest = 0.0
    for chosen in among:
        present = np.unique(of_group[chosen])
        for name in np.unique(predicted):
            rates = [float((predicted[chosen & (of_group == group)] == name).mean())
                     for group in present]
            widest = max(widest, max(rates) - min(rates))
    return widest
