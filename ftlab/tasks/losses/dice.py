"""Dice loss: the overlap of predicted and true classes, whatever their sizes."""

from __future__ import annotations

from torch import Tensor

from ftlab.tasks.losses.base import Loss, distribution, log_probabilities


def soft_dice(logits: Tensor, target: Tensor, smooth: float = 1e-5) -> Tensor:
    """1 - mean_c (2 sum_i p_ic q_ic + s) / (sum_i p_ic + sum_i q_ic + s), a scalar.

    Args:
        logits: (B, C).
        target: class indices (B,) or soft targets (B, C).
        smooth: s, which decides about a class that is in neither.
    """
    shares = log_probabilities(logits).exp()
    truth = distribution(target, shares)
    shared = (shares * truth).sum(dim=0)
    sizes = shares.sum(dim=0) + truth.sum(dim=0)
    return 1 - ((2 * shared + smooth) / (sizes + smooth)).mean()


class Dice(Loss):
    """One minus the soft Dice coefficient, mean over the classes, plus a part of the cross entropy.

    It is of a set of rows as a whole: of an image's pixels in a segmentation, of a batch in a
    classification.

    Milletari, Navab, Ahmadi (2016), https://arxiv.org/abs/1606.04797; with cross entropy added, as
    Isensee et al. (2021), https://doi.org/10.1038/s41592-020-01008-z, have it.

    Args:
        cross_entropy: how much of the mean cross entropy is added; at least 0.
        smooth: added to numerator and denominator; above 0.
    """

    def __init__(self, cross_entropy: float = 1.0, smooth: float = 1e-5) -> None:
        if not cross_entropy >= 0:
            raise ValueError(f"cross_entropy must be at least 0, got {cross_entropy}")
        if not smooth > 0:
            raise ValueError(f"smooth must be above 0, got {smooth}")
        self.cross_entropy = cross_entropy
        self.smooth = smooth

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        log_p = log_probabilities(logits)
        entropy = -(distribution(target, log_p) * log_p).sum(dim=-1).mean()
        return soft_dice(logits, target, self.smooth) + self.cross_entropy * entropy
