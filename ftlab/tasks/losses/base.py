"""Contract of a classification loss, and the conversions that losses share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from ftlab.renamed import RefusesEarlierNames


def at_least_float32(logits: Tensor) -> Tensor:
    """The logits, not in half precision, which rounds log p to two or three digits."""
    return logits if logits.dtype == torch.float64 else logits.float()


def log_probabilities(logits: Tensor) -> Tensor:
    """Log softmax over the classes, (B, C) -> (B, C), in float32 at least."""
    return at_least_float32(logits).log_softmax(dim=-1)


def distribution(target: Tensor, like: Tensor) -> Tensor:
    """Targets as distributions over classes, (B, C), with the dtype of `like` (B, C).

    Args:
        target: class indices (B,) int64, or soft targets (B, C) as MixUp and CutMix make them.
        like: logits or log-probabilities, for the number of classes and the dtype.
    """
    if target.ndim == 2:
        return target.to(like.dtype)
    return torch.nn.functional.one_hot(target, like.shape[-1]).to(like.dtype)


class Loss(RefusesEarlierNames, ABC):
    """The mean loss of a batch; `fit` gives it the training counts before the first call.

    On soft targets a loss is the expectation of its value over the target's classes, so that a
    one-hot row gives the same as its class index.
    """

    convex: bool = False
    """True where the loss is convex and differentiable in the logits."""
    per_class: Tensor | None = None
    """One number a class (C,), where the loss has such: weights, log priors; made by `fit`."""
    _placed: tuple[Tensor, Tensor] | None = None
    """`per_class`, and the same on the device where losses are computed."""

    reads_counts: ClassVar[bool] = False
    """True where the training examples' counts are in it."""

    def fit(self, counts: Sequence[int]) -> None:
        """Learn from the number of training examples of each class, after `Subset`."""

    @abstractmethod
    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean loss, a scalar.

        Args:
            logits: (B, C).
            target: class indices (B,) int64 or soft targets (B, C).
        """

    def losses(self, logits: Tensor, target: Tensor) -> Tensor | None:
        """Loss of each example (B,), of which the batch's is the mean that `weight` weights.

        Returns:
            None where the loss of a batch is not such a mean.
        """
        return None

    def slope(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor] | None:
        """Mean losses of several heads on one batch, and their gradients by the logits.

        Args:
            logits: (..., B, C), a batch a head.
            target: class indices, broadcast against (..., B).

        Returns:
            (...) and (..., B, C); None where the loss states no closed form.
        """
        return None

    def weight(self, target: Tensor) -> float:
        """Divisor of the mean: the batch's size, mostly."""
        return len(target)

    def weights(self, target: Tensor) -> Tensor:
        """Part of each example in `weight` (B,)."""
        return torch.ones(len(target), device=target.device)

    def per_class_like(self, logits: Tensor) -> Tensor:
        """`per_class` (C,) on the logits' device, in float32 at least.

        Raises:
            RuntimeError: `fit` was not called.
        """
        if self.per_class is None:
            raise RuntimeError(f"{type(self).__name__} needs `fit` with the class counts first")
        like = at_least_float32(logits)
        source, placed = self._placed or (None, self.per_class)
        if source is not self.per_class or (placed.device, placed.dtype) != (like.device, like.dtype):
            # kept there, so that a step copies nothing; the first call may be a validation step,
            # and a tensor made in inference mode could never take part in training
            with torch.inference_mode(False):
                placed = self.per_class.to(like)
            self._placed = self.per_class, placed
        return placed


def checked_counts(counts: Sequence[int]) -> Tensor:
    """Class counts as float64 (C,), each at least one.

    Raises:
        ValueError: a class without training examples has no frequency to weight by.
    """
    if not counts or min(counts) < 1:
        raise ValueError(f"each class needs at least 1 training example, got counts {[*counts]}")
    return torch.tensor(counts, dtype=torch.float64)


def slope_of_log_p(log_p: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """-sum_ic a_ic log p_ic (...) and its gradient by the logits, p sum_c a_c - a (..., B, C).

    Args:
        log_p: log-probabilities (..., B, C).
        share: a, what each counts in the mean (..., B, C).
    """
    loss = -(share * log_p).sum(dim=(-2, -1))
    return loss, log_p.exp() * share.sum(dim=-1, keepdim=True) - share


def one_hot(target: Tensor, like: Tensor) -> Tensor:
    """Class indices (..., B) as rows (..., B, C) with the dtype of `like` (..., B, C)."""
    return torch.nn.functional.one_hot(target, like.shape[-1]).to(like.dtype)


def focal_terms(log_p: Tensor, gamma: float) -> Tensor:
    """-(1 - p)^gamma log p, elementwise: cross entropy for gamma 0 (Lin et al. 2017).

    Args:
        log_p: log-probabilities.
        gamma: focusing exponent.
    """
    # the floor keeps the gradient finite where p rounds to 1 and gamma is below 1
    rest = (1 - log_p.exp()).clamp_min(torch.finfo(log_p.dtype).tiny)
    return -(rest**gamma) * log_p
