"""Focal loss: well classified examples count less."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ftlab.errors import InputError
from ftlab.tasks.losses.base import Loss, distribution, focal_terms, log_probabilities


def focal(
    logits: Tensor, target: Tensor, gamma: float = 2.0, alpha: Tensor | None = None
) -> Tensor:
    """-sum_c q_c alpha_c (1 - p_c)^gamma log p_c of each example (B,).

    Args:
        logits: (B, C).
        target: class indices (B,) or soft targets (B, C).
        gamma: focusing exponent.
        alpha: weights (C,), or None for 1.
    """
    log_p = log_probabilities(logits)
    terms = focal_terms(log_p, gamma)
    terms = terms if alpha is None else alpha * terms
    return (distribution(target, log_p) * terms).sum(dim=-1)


class Focal(Loss):
    """Focal loss in its softmax form: -alpha_y (1 - p_y)^gamma log p_y, mean over the batch.

    Lin, Goyal, Girshick, He, Dollár (2017), https://arxiv.org/abs/1708.02002

    Args:
        gamma: how strongly easy examples are discounted; 0 is cross entropy; at least 0.
        alpha: one weight a class in the order of the classes (sorted by name); the paper's binary
            alpha is [1 - alpha, alpha].
    """

    def __init__(self, gamma: float = 2.0, alpha: list[float] | None = None) -> None:
        if not gamma >= 0:
            raise ValueError(f"gamma must be at least 0, got {gamma}")
        if alpha is not None and not all(a > 0 for a in alpha):
            raise ValueError(f"alpha must be above 0 for each class, got {alpha}")
        self.gamma = gamma
        self.convex = gamma == 0  # the factor (1 - p)^gamma bends it
        self.alpha = alpha

    def fit(self, counts: Sequence[int]) -> None:
        """Check that there is one alpha a class.

        Raises:
            InputError: there are fewer or more.
        """
        if self.alpha is None:
            return
        if len(self.alpha) != len(counts):
            raise InputError(
                f"Focal: alpha has {len(self.alpha)} weights, the data has {len(counts)} classes",
                "give one weight a class, in the order of the sorted class names",
            )
        self.per_class = torch.tensor(self.alpha, dtype=torch.float64)

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.losses(logits, target).mean()

    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        alpha = None if self.alpha is None else self.per_class_like(logits)
        return focal(logits, target, self.gamma, alpha)
