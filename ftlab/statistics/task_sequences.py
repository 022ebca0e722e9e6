"""Scores of a sequence of tasks: what is reached in the end, kept, and gained in advance.

`results` (T, T) has in row t the scores of all tasks after the fit on task t, both from 0; more is
better. Published numbers of one name differ in what they average: these are the definitions of
Lopez-Paz, Ranzato (2017), https://arxiv.org/abs/1706.08840, and of Chaudhry, Dokania, Ajanthan,
Torr (2018), https://arxiv.org/abs/1801.10112, as the library mammoth computes them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def final_accuracy(results: ArrayLike) -> float:
    """ACC: the mean score of all tasks after the last fit."""
    return float(_square(results, 1)[-1].mean())


def backward_transfer(results: ArrayLike) -> float:
    """BWT: the mean change of each earlier task since its own fit; below 0 is forgetting."""
    scores = _square(results, 2)
    return float((scores[-1] - scores.diagonal())[:-1].mean())


def forward_transfer(results: ArrayLike, untrained: ArrayLike) -> float:
    """FWT: the mean score of each later task before its fit, above that of an untrained network.

    Args:
        results: see above.
        untrained: score of each task before any fit (T,).
    """
    scores, start = _square(results, 2), np.asarray(untrained, dtype=np.float64)
    if start.shape != (len(scores),):
        raise ValueError(f"untrained must have a score of each of {len(scores)} tasks, "
                         f"got shape {start.shape}")
    return float((scores.diagonal(1) - start[1:]).mean())


def forgetting(results: ArrayLike) -> float:
    """Mean loss of each earlier task against its best, the end included, so that it is 0 or more."""
    scores = _square(results, 2)
    return float((scores.max(axis=0) - scores[-1])[:-1].mean())


def _square(results: ArrayLike, least: int) -> NDArray[np.float64]:
    scores = np.asarray(results, dtype=np.float64)
    if scores.ndim != 2 or scores.shape[0] != scores.shape[1] or len(scores) < least:
        raise ValueError(f"results must have a row and a column a task, of {least} tasks at least, "
                         f"got shape {scores.shape}")
    return scores
