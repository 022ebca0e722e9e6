"""Metrics of several labels an example, all updated with logits (B, L) and targets of 0 and 1.

They add up over uneven batches and over ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
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
from ftlab.tasks.metric import Metric, Records


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


class MultiLabelCollection(MetricCollection):
    """A collection updated with logits: torchmetrics would guess for each batch what it got."""

    def update(  # type: ignore[override]  # logits and target alone, where theirs takes any
            self, outputs: Tensor, target: Tensor) -> None:
        super().update(probabilities(outputs), target.long())

    def forward(self, outputs: Tensor, target: Tensor) -> dict[str, Any]:
        return super().forward(probabilities(outputs), target.long())


def multi_label_metrics(labels: Callable[[], int], threshold: float) -> list[Metric]:
    """Metrics of logits of so many labels; probabilities above `threshold` count."""

    def ranked(kind: Callable[..., Any], **options: Any) -> Callable[[], Any]:
        # targets come from `Task.encode`, so checking each batch would only cost device syncs
        return lambda: kind(num_labels=labels(), validate_args=False, **options)

    decided = partial(ranked, threshold=threshold)
    return [
        Metric("accuracy", decided(MultilabelExactMatch), True, "share", _right,
               right_or_wrong=True),
        Metric("f1_macro", decided(MultilabelF1Score, average="macro"), True, "share", _macro),
        Metric("f1_micro", decided(MultilabelF1Score, average="micro"), True, "share", _micro),
        Metric("mean_average_precision", ranked(MeanAveragePrecision), True, "share"),
        Metric("average_precision/<class>", ranked(AveragePrecisions), True, "share"),
        Metric("f1/<class>", decided(MultilabelF1Score, average="none"), True, "share"),
    ]


def _right(records: Records) -> Array:
    """1 for each example with exactly its labels, else 0, (N,)."""
    pairs = zip(records["target"], records["prediction"], strict=True)
    return np.array([set(a) == set(b) for a, b in pairs], dtype=np.float64)


def _micro(records: Records) -> Array:
    counts = _counts(records).sum(axis=-1)
    return pseudovalues(counts, lambda sums: ratio(sums[..., 0], sums[..., 1]))


def _macro(records: Records) -> Array:
    # every label of the task, since one that no record names counts as F1 0
    labels = len(records["scores"][0]) if records["scores"] else 0
    return pseudovalues(_counts(records), lambda sums: ratio(
        sums[..., 0, :], sums[..., 1, :]).sum(axis=-1) / labels)


def _counts(records: Records) -> Array:
    """Twice the hits, and predictions and targets together, of the labels named (N, 2, L)."""
    both = records["target"], records["prediction"]
    names = sorted({name for rows in both for row in rows for name in row})
    true, predicted = (np.array([[name in row for name in names] for row in rows],
                                dtype=np.float64) for rows in both)
    return np.stack([2 * true * predicted, true + predicted], axis=1)
