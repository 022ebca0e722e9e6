"""Cross entropy weighted by inverse class frequency."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ftlab.tasks.losses.base import (
    Loss,
    checked_counts,
    distribution,
    log_probabilities,
    one_hot,
    slope_of_log_p,
)


def inverse_frequency_weights(counts: Sequence[int], power: float = 1.0) -> Tensor:
    """w_c = n_c^-power, scaled to mean 1 over the classes; float64 (C,)."""
    weights = checked_counts(counts) ** -power
    return weights / weights.mean()


def weighted_cross_entropy(logits: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """sum_ic w_c q_ic (-log p_ic) / sum_ic w_c q_ic.

    The mean is a weighted one, as with torch's `weight=`; torch divides by B when targets are
    soft, so that a one-hot row and its index disagree there. Here they agree.

    Args:
        logits: (B, C).
        target: class indices (B,) or soft targets (B, C).
        weights: (C,).
    """
    log_p = log_probabilities(logits)
    weighted = weights * distribution(target, log_p)
    return -(weighted * log_p).sum() / weighted.sum()


class WeightedCrossEntropy(Loss):
    """Cross entropy in which a class counts by its inverse frequency: w_c = n_c^-power.

    Weights have mean 1 over the classes; the batch mean is weighted, as with torch's `weight=`.

    King and Zeng (2001), https://doi.org/10.1093/oxfordjournals.pan.a004868; the square root
    (power 0.5) after Mahajan et al. (2018), https://arxiv.org/abs/1805.00932, who sample by it.

    Args:
        power: 1 makes classes equal, 0 is plain cross entropy, 0.5 lies between; at least 0.
    """

    convex = True

    def __init__(self, power: float = 1.0) -> None:
        if not power >= 0:
            raise ValueError(f"power must be at least 0, got {power}")
        self.power = power

    reads_counts = True

    def fit(self, counts: Sequence[int]) -> None:
        self.per_class = inverse_frequency_weights(counts, self.power)

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        return weighted_cross_entropy(logits, target, self.per_class_like(logits))

    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        log_p = log_probabilities(logits)
        weighted = self.per_class_like(logits) * distribution(target, log_p)
        return -(weighted * log_p).sum(dim=-1) / weighted.sum(dim=-1)

    def slope(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        log_p = log_probabilities(logits)
        weighted = self.per_class_like(logits) * one_hot(target, log_p)
        return slope_of_log_p(log_p, weighted / weighted.sum(dim=(-2, -1), keepdim=True))

    def weight(self, target: Tensor) -> float:
        """The sum of the examples' weights."""
        return float(self.weights(target).sum())

    def weights(self, target: Tensor) -> Tensor:
        assert self.per_class is not None
        weights = self.per_class.to(target.device)
        return (weights * distribution(target, weights.expand(len(target), -1))).sum(dim=-1)
