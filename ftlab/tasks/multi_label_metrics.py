"""Metrics of several labels an example, all updated with logits (B, L) and targets of 0 and 1.

They add up over uneven batches and over ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MultilabelAveragePrecision,
    MultilabelExactMatch,
    MultilabelF1Score,
)
from torchmetrics.functional.classification import binary_average_precision
from torchmetrics.utilities.data import dim_zero_cat

from ftlab.tasks.jackknife import Array, pseudovalues, ratio

PER_LABEL = ("average_precision", "f1")
"""Metrics whose value is a vector over the labels (L,)."""


def probabilities(logits: Tensor) -> Tensor:
    """Sigmoid of each logit (B, L) in float32."""
    return logits.float().sigmoid()


def average_precisions(scores: Tensor, target: Tensor) -> Tensor:
    """Area under each label's precision-recall steps (L,), without bins.

    Args:
        scores: probabilities (N, L).
        target: 0 or 1 (N, L).

    Returns:
        nan for a label that no example has.
    """
    areas = scores.new_full((scores.shape[-1],), torch.nan)
    for label in target.any(dim=0).nonzero().flatten():
        areas[label] = binary_average_precision(scores[:, label], target[:, label],
                                                validate_args=False)
    return areas


class AveragePrecisions(MultilabelAveragePrecision):
    """`average_precisions`; torchmetrics' own warns of a label that no example has."""

    def compute(self) -> Tensor:  # type: ignore[override]  # theirs may be a list of tensors
        """Area of each label (L,)."""
        return average_precisions(dim_zero_cat(self.preds), dim_zero_cat(self.target))


class MeanAveragePrecision(AveragePrecisions):
    """Mean of `average_precisions` over the labels that occur; nan where none does."""

    def compute(self) -> Tensor:  # type: ignore[override]  # as above
        """Mean area, a scalar."""
        return super().compute().nanmean()


class _OnLogits(MetricCollection):
    """A collection updated with logits: torchmetrics would guess for each batch what it got."""

    def update(  # type: ignore[override]  # logits and target alone, where theirs takes any
            self, outputs: Tensor, target: Tensor) -> None:
        super().update(probabilities(outputs), target.long())

    def forward(self, outputs: Tensor, target: Tensor) -> dict[str, Any]:
        return super().forward(probabilities(outputs), target.long())


def multi_label_metrics(labels: int, threshold: float) -> MetricCollection:
    """Fresh metrics for logits of `labels` labels; probabilities above `threshold` count."""
    # targets come from `Task.encode`, so checking each batch would only cost device syncs
    ranked: dict[str, Any] = {"num_labels": labels, "validate_args": False}
    decided = ranked | {"threshold": threshold}
    return _OnLogits({
        "mean_average_precision": MeanAveragePrecision(**ranked),
        "f1_micro": MultilabelF1Score(**decided, average="micro"),
        "f1_macro": MultilabelF1Score(**decided, average="macro"),
        "accuracy": MultilabelExactMatch(**decided),
        "average_precision": AveragePrecisions(**ranked),
        "f1": MultilabelF1Score(**decided, average="none"),
    })


def contributions(metric: str, target: Sequence[Sequence[str]], prediction: Sequence[Sequence[str]],
                  labels: int) -> Array | None:
    """What each example adds to a metric of decided labels, (N,); None for another metric.

    Args:
        metric: name without split prefix.
        target: the labels of each example.
        prediction: likewise.
        labels: how many the task has.
    """
    if metric == "accuracy":
        return np.array([set(a) == set(b) for a, b in zip(target, prediction, strict=True)],
                        dtype=np.float64)
    if metric not in ("f1_micro", "f1_macro"):
        return None
    names = sorted({name for row in (*target, *prediction) for name in row})
    true, said = (np.array([[name in row for name in names] for row in rows], dtype=np.float64)
                  for rows in (target, prediction))
    counts = np.stack([2 * true * said, true + said], axis=1)  # (N, 2, L)
    if metric == "f1_micro":
        return pseudovalues(counts.sum(axis=-1), lambda sums: ratio(sums[..., 0], sums[..., 1]))
    return pseudovalues(
        counts, lambda sums: ratio(sums[..., 0, :], sums[..., 1, :]).sum(axis=-1) / labels)
