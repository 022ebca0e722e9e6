"""Techniques over several data sets: mean ranks, Friedman's test, Nemenyi's critical difference."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

FEWEST = 2  # data sets, and techniques: below, there is nothing to rank or compare


@dataclass(frozen=True)
class Ranked:
    """Techniques compared over data sets.

    Attributes:
        ranks: mean rank of each technique, 1 the best, equals share theirs.
        p: of Friedman's test (Iman and Davenport's form) that all rank alike; nan where it does
            not apply (two techniques, one data set).
        pairs: p-values of Nemenyi's test, techniques by techniques.
        difference: Nemenyi's critical difference of mean ranks.
        data_sets: how many.
    """

    ranks: dict[str, float]
    p: float
    pairs: pd.DataFrame
    difference: float
    data_sets: int


def rank(scores: Mapping[str, Mapping[str, float]], higher_is_better: bool) -> Ranked | None:
    """Compare techniques over data sets as Demšar (2006) advises.

    https://jmlr.org/papers/v7/demsar06a.html; Friedman's statistic in the less conservative form
    of Iman and Davenport (1980); Nemenyi (1963) for the pairs.

    Args:
        scores: by data set, then technique. Techniques that some data set lacks are left out.
        higher_is_better: of the scores.

    Returns:
        None with fewer than two data sets or techniques.
    """
    frame = pd.DataFrame(scores).T.dropna(axis="columns")
    n, k = frame.shape
    if n < FEWEST or k < FEWEST:
        return None
    ranked = frame.rank(axis="columns", ascending=not higher_is_better)
    means = {str(name): float(value) for name, value in ranked.mean().items()}
    q = float(stats.studentized_range.ppf(0.95, k, np.inf)) / math.sqrt(2)
    return Ranked(means, _friedman(ranked), _nemenyi(frame), q * math.sqrt(k * (k + 1) / (6 * n)),
                  n)


def _friedman(ranked: pd.DataFrame) -> float:
    n, k = ranked.shape
    if k < 3:
        return math.nan
    if (ranked.nunique(axis="columns") == 1).all():
        return 1.0
    chi = float(stats.friedmanchisquare(*(ranked[name] for name in ranked)).statistic)
    rest = n * (k - 1) - chi
    if rest <= 0:  # every data set ranks alike
        return 0.0
    return float(stats.f.sf((n - 1) * chi / rest, k - 1, (k - 1) * (n - 1)))


def _nemenyi(frame: pd.DataFrame) -> pd.DataFrame:
    import scikit_posthocs  # a second to import

    found: pd.DataFrame = scikit_posthocs.posthoc_nemenyi_friedman(frame.to_numpy())
    return pd.DataFrame(found.to_numpy(), index=list(frame), columns=list(frame))
