"""Cross entropy, with label smoothing."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from ftlab.tasks.losses.base import (
    Loss,
    at_least_float32,
    distribution,
    log_probabilities,
    one_hot,
    slope_of_log_p,
)


def cross_entropy(logits: Tensor, target: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """-sum_c q_c log p_c, mean over the batch, with q = (1 - s) target + s / C.

    Args:
        logits: (B, C).
        target: class indices (B,) or soft targets (B, C).
        label_smoothing: s.
    """
    if target.ndim == 1:  # the fused kernel needs no one-hot matrix
        logits = at_least_float32(logits)
        return functional.cross_entropy(logits, target, label_smoothing=label_smoothing)
    log_p = log_probabilities(logits)
    q = (1 - label_smoothing) * distribution(target, log_p) + label_smoothing / logits.shape[-1]
    return -(q * log_p).sum(dim=-1).mean()


class CrossEntropy(Loss):
    """Cross entropy with label smoothing: -sum_c q_c log p_c, q = (1 - s) onehot + s / C.

    Szegedy, Vanhoucke, Ioffe, Shlens, Wojna (2016), https://arxiv.org/abs/1512.00567

    Args:
        label_smoothing: s, the part of the target spread over all classes, in [0, 1).
    """

    convex = True

    def __init__(self, label_smoothing: float = 0.0) -> None:
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}")
        self.label_smoothing = label_smoothing

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(logits, target, self.label_smoothing)

    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        log_p = log_probabilities(logits)
        q = distribution(target, log_p)
        q = (1 - self.label_smoothing) * q + self.label_smoothing / logits.shape[-1]
        return -(q * log_p).sum(dim=-1)

    def slope(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        log_p = log_probabilities(logits)
        q = one_hot(target, log_p)
        if self.label_smoothing:
            q = (1 - self.label_smoothing) * q + self.label_smoothing / logits.shape[-1]
        return slope_of_log_p(log_p, q / logits.shape[-2])
