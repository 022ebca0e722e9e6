"""Class-balanced loss: weights from the effective number of examples."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ftlab.tasks.losses.base import (
    Loss,
    checked_counts,
    distribution,
    focal_terms,
    log_probabilities,
    one_hot,
    slope_of_log_p,
)


def effective_number_weights(counts: Sequence[int], beta: float) -> Tensor:
    """w_c = (1 - beta) / (1 - beta^n_c), scaled to sum to C; float64 (C,)."""
    # expm1 and log1p keep 1 - beta^n exact where beta^n rounds to 1
    log_beta = torch.tensor(beta, dtype=torch.float64).log()
    weights = 1 / -torch.expm1(checked_counts(counts) * log_beta)
    return weights * len(weights) / weights.sum()


def class_balanced(
    logits: Tensor, target: Tensor, weights: Tensor, gamma: float = 0.0
) -> Tensor:
    """-sum_c q_c w_c (1 - p_c)^gamma log p_c of each example (B,).

    Args:
        logits: (B, C).
        target: class indices (B,) or soft targets (B, C).
        weights: (C,).
        gamma: focusing exponent.
    """
    log_p = log_probabilities(logits)
    terms = weights * focal_terms(log_p, gamma)
    return (distribution(target, log_p) * terms).sum(dim=-1)


class ClassBalanced(Loss):
    """Class-balanced loss: w_y (1 - p_y)^gamma (-log p_y), w_c = (1 - beta) / (1 - beta^n_c).

    (1 - beta^n) / (1 - beta) is the effective number of n examples that overlap. Weights sum to
    the number of classes; as in the paper the batch is divided by its size, not by its weights.

    Cui, Jia, Lin, Song, Belongie (2019), https://arxiv.org/abs/1901.05555

    Args:
        beta: 0 weights all classes alike, towards 1 by inverse frequency; in [0, 1).
        gamma: 0 for the softmax cross entropy, above for the focal loss; at least 0.
    """

    def __init__(self, beta: float = 0.999, gamma: float = 0.0) -> None:
        if not 0 <= beta < 1:
            raise ValueError(f"beta must be in [0, 1), got {beta}")
        if not gamma >= 0:
            raise ValueError(f"gamma must be at least 0, got {gamma}")
        self.beta = beta
        self.gamma = gamma
        self.convex = gamma == 0  # the factor (1 - p)^gamma bends it

    reads_counts = True

    def fit(self, counts: Sequence[int]) -> None:
        self.per_class = effective_number_weights(counts, self.beta)

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.losses(logits, target).mean()

    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        return class_balanced(logits, target, self.per_class_like(logits), self.gamma)

    def slope(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor] | None:
        if self.gamma:
            return None
        log_p = log_probabilities(logits)
        weighted = self.per_class_like(logits) * one_hot(target, log_p)
        return slope_of_log_p(log_p, weighted / logits.shape[-2])
