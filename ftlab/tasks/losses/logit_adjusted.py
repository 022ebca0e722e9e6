"""Logit adjustment: the class prior is added to the logits in training."""

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


def log_priors(counts: Sequence[int]) -> Tensor:
    """log(n_c / sum n), float64 (C,)."""
    checked = checked_counts(counts)
    return (checked / checked.sum()).log()


def logit_adjusted(logits: Tensor, target: Tensor, offset: Tensor) -> Tensor:
    """Cross entropy of `logits + offset` of each example (B,).

    Args:
        logits: (B, C).
        target: class indices (B,) or soft targets (B, C).
        offset: tau times the log priors (C,).
    """
    log_p = log_probabilities(logits + offset)
    return -(distribution(target, log_p) * log_p).sum(dim=-1)


class LogitAdjusted(Loss):
    """Cross entropy of the adjusted logits f_c + tau log(pi_c), with pi the training prior.

    The logits that minimise it rank the classes as if all were equally frequent, so predictions
    use the unadjusted ones.

    Menon, Jayasumana, Rawat, Jain, Veit, Kumar (2021), https://arxiv.org/abs/2007.07314

    Args:
        tau: strength; 0 is cross entropy, 1 is consistent for the balanced error; at least 0.
    """

    convex = True

    def __init__(self, tau: float = 1.0) -> None:
        if not tau >= 0:
            raise ValueError(f"tau must be at least 0, got {tau}")
        self.tau = tau

    reads_counts = True

    def fit(self, counts: Sequence[int]) -> None:
        self.per_class = log_priors(counts)

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.losses(logits, target).mean()

    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        return logit_adjusted(logits, target, self.tau * self.per_class_like(logits))

    def slope(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        log_p = log_probabilities(logits + self.tau * self.per_class_like(logits))
        return slope_of_log_p(log_p, one_hot(target, log_p) / logits.shape[-2])
