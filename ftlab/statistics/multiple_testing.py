"""Several tests at once, and what they leave standing beside the best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

LEVEL = 0.05
"""Chance of any false claim within a family of tests."""

FEWEST = 3
"""Seeds below which trained models are compared and nothing is claimed of techniques: of the
variance over two seeds next to nothing is known."""

Pair = tuple[str, str]


def corrected(p: Sequence[float]) -> list[float]:
    """Adjusted p-values of a family, by Holm (1979), https://www.jstor.org/stable/4615733.

    What could not be tested (nan) stays so, and counts for nothing.
    """
    tested = [place for place, value in enumerate(p) if math.isfinite(value)]
    adjusted = list(p)
    if tested:
        values = np.array([p[place] for place in tested])
        order = np.argsort(values)
        steps = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
        for place, value in zip(order, np.minimum(steps, 1.0), strict=True):
            adjusted[tested[place]] = float(value)
    return adjusted


def holm(p: Mapping[Pair, float]) -> dict[Pair, float]:
    """`corrected`, by pair."""
    return dict(zip(p, corrected(list(p.values())), strict=True))


def standing(means: Mapping[str, float], adjusted: Mapping[Pair, float],
             higher_is_better: bool) -> tuple[str, list[str]]:
    """The best, and everything not significantly worse (the best itself among them).

    The best is chosen by looking, so that its comparisons belong to the family of all pairs
    (Hsu 1984 on comparisons with the best); `adjusted` has to be of all pairs. What could not be
    tested against the best is not said to stand beside it.

    Args:
        means: of the complete techniques, in order; the first of equals is the best.
        adjusted: from `holm`, by pairs in the order of `means`.
        higher_is_better: of the means.
    """
    sign = 1 if higher_is_better else -1
    best = max(means, key=lambda name: sign * means[name])

    def stands(name: str) -> bool:
        if name == best or means[name] == means[best]:
            return True
        p = adjusted.get((best, name), adjusted.get((name, best), math.nan))
        return p > LEVEL

    return best, [name for name in means if stands(name)]


def pairs(names: Sequence[str]) -> list[Pair]:
    """All pairs, each in the order of the names."""
    return list(combinations(names, 2))
