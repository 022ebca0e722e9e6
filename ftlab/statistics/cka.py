"""Centred kernel alignment of two representations of the same examples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def linear_cka(some: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """Linear centred kernel alignment, from 0 to 1; 1 where one is the other turned and scaled.

    It is |Y'X|^2 / (|X'X| |Y'Y|) in Frobenius norms, columns centred; not a number where all
    examples have the same features.

    Kornblith, Norouzi, Lee, Hinton (2019), https://arxiv.org/abs/1905.00414

    Args:
        some: features (N, D).
        others: of the same examples, (N, E).
    """
    x, y = (features - features.mean(axis=0) for features in (some, others))
    norms = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(np.square(np.linalg.norm(y.T @ x)) / norms) if norms > 0 else float("nan")
