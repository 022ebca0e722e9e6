from __future__ import annotations

import numpy as np
from scipy import optimize

from ftlab.statistics.transferability.base import Array, Codes, Score, spectrum

GRID = np.linspace(-30, 30, 121)
"""Logarithms of the prior's precision over the noise's, in units of the largest squared singular
value: from a layer that is free to one that is nothing."""


class LogME(Score):
    """Evidence of a Bayesian linear layer for each class against the rest, mean over classes.

    You, Liu, Wang, Long (2021), https://arxiv.org/abs/2102.11005. The evidence is maximised over
    the precisions of prior and noise: for a given ratio of the two the noise's has a closed form,
    so the search is on one number. The reference implementations stop their iteration early and
    give a slightly smaller number. Features that give a class without any error have no finite
    maximum; the search ends at the grid's end, and ranks them first.
    """

    name = "LogME"

    def measure(self, rows: Array, labels: Codes) -> float:
        left, values = spectrum(rows)
        squares = values**2
        scale = squares.max(initial=0.0) or 1.0
        ratios = np.exp(GRID)
        return float(np.mean([
            _evidence(left, squares / scale, (labels == code).astype(np.float64), ratios)
            for code in range(labels.max() + 1)]))


def _evidence(left: Array, squares: Array, target: Array, ratios: Array) -> float:
    """The maximum of the log evidence, per example.

    Args:
        left: left singular vectors (N, K).
        squares: of the singular values (K,).
        target: 1 for examples of the class, else 0.
        ratios: where to look.
    """
    count = len(target)
    along = (left.T @ target) ** 2
    beyond = float(target @ target - along.sum())
    beyond = 0.0 if beyond < 1e-12 * count else beyond

    def at(ratio: float) -> float:
        shares = ratio / (ratio + squares)
        quadratic = max(float(shares @ along) + beyond, 1e-300)  # residuals and squared weights
        noise = count * (np.log(count / quadratic) - 1 - np.log(2 * np.pi))
        return 0.5 * (noise + float(np.log(shares).sum())) / count

    heights = [at(ratio) for ratio in ratios]
    best = int(np.argmax(heights))
    if best in (0, len(ratios) - 1):
        return heights[best]
    found = optimize.minimize_scalar(
        lambda exponent: -at(np.exp(exponent)), method="bounded", options={"xatol": 1e-10},
        bounds=np.log([ratios[best - 1], ratios[best + 1]]))
    return max(heights[best], float(-found.fun))
