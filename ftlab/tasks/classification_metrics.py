"""Metrics of a classification: torchmetrics', with the cases it leaves open decided.

All are updated with logits (B, C) and class indices (B,), and add up over uneven batches and
over ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassCalibrationError,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
    MulticlassStatScores,
)
from torchmetrics.functional.classification import binary_auroc
from torchmetrics.utilities.data import dim_zero_cat

from ftlab.tasks import classification_jackknife as jackknife
from ftlab.tasks.metric import Metric


def probabilities(logits: Tensor) -> Tensor:
    """Softmax over the classes (B, C) in float32."""
    return logits.float().softmax(dim=-1)


def one_vs_rest_auroc(scores: Tensor, target: Tensor) -> Tensor:
    """Area under the ROC curve of each class against the rest (C,), without bins.

    Args:
        scores: probabilities (N, C).
        target: class indices (N,).

    Returns:
        nan for a class of which there is no example, or no example of another class.
    """
    areas = scores.new_full((scores.shape[-1],), torch.nan)
    present = target.unique()
    for c in present if len(present) > 1 else ():
        areas[c] = binary_auroc(scores[:, c], (target == c).long(), validate_args=False)
    return areas


class _OfPresent(MulticlassStatScores):
    """Values per class (C,), not a number for a class in neither truth nor prediction.

    torchmetrics gives such a class 0, while its macro means leave it out.
    """

    def compute(self) -> Tensor:
        """One value per class (C,)."""
        hits, false_positives, _, misses = self._final_state()
        return super().compute().masked_fill(hits + false_positives + misses == 0, torch.nan)


class Precisions(_OfPresent, MulticlassPrecision):
    """Precision of each class."""


class Recalls(_OfPresent, MulticlassRecall):
    """Recall of each class."""


class F1Scores(_OfPresent, MulticlassF1Score):
    """F1 of each class."""


class OneVsRestAUROC(MulticlassAUROC):
    """Mean of `one_vs_rest_auroc` over the classes that occur; nan where only one does.

    torchmetrics' own gives an absent class the area 0, with a warning, and averages it in.
    """

    def compute(self) -> Tensor:  # type: ignore[override]  # theirs may be a list of tensors
        """Mean area, a scalar."""
        scores, target = dim_zero_cat(self.preds), dim_zero_cat(self.target)
        return one_vs_rest_auroc(scores, target).nanmean()


class BalancedAccuracy(MulticlassStatScores):
    """Mean recall over the classes that occur (scikit-learn's `balanced_accuracy_score`).

    It differs from macro recall where a class is predicted but absent: that counts as recall 0
    there and not at all here.
    """

    def compute(self) -> Tensor:
        """Mean recall, a scalar."""
        true_positives, _, _, _, support = super().compute().unbind(dim=-1)
        present = support > 0
        return (true_positives[present] / support[present]).mean()


class Matthews(MulticlassStatScores):
    """Matthews' correlation of targets and predictions, for any number of classes (C).

    (h N - sum_c p_c t_c) / sqrt((N^2 - sum_c p_c^2) (N^2 - sum_c t_c^2)), of N examples with h
    hits, p_c predictions and t_c targets of class c; 0 where one of them has one class alone, as
    scikit-learn has it and torchmetrics' own has not.

    Matthews (1975); Gorodkin (2004), https://doi.org/10.1016/j.compbiolchem.2004.09.006
    """

    def compute(self) -> Tensor:
        """From -1 to 1, a scalar."""
        hits, false_positives, _, _, true = super().compute().unbind(dim=-1)
        predicted, n = hits + false_positives, true.sum()
        # whole numbers, which float32 could not hold, up to here
        left, right = (n * n - (counts * counts).sum() for counts in (predicted, true))
        spread = left.float().sqrt() * right.float().sqrt()
        return ((hits.sum() * n - (predicted * true).sum()) / spread).nan_to_num(0.0)


class CalibrationError(MulticlassCalibrationError):
    """Expected calibration error, sum_b n_b / N |accuracy_b - confidence_b|.

    Guo, Pleiss, Sun, Weinberger (2017), https://arxiv.org/abs/1706.04599

    torchmetrics' own puts confidence 1, which float32 rounds to, into a bin of its own beyond
    the last; here it belongs to the last.
    """

    def update(self, preds: Tensor, target: Tensor) -> None:
        super().update(preds.clamp(max=1 - torch.finfo(preds.dtype).eps), target)


class ClassificationCollection(MetricCollection):
    """A collection updated with logits.

    torchmetrics guesses for each batch whether it was given logits, by whether any lies outside
    [0, 1]; a new head's small logits can all lie inside and would pass as probabilities.
    """

    def update(  # type: ignore[override]  # logits and target alone, where theirs takes any
            self, outputs: Tensor, target: Tensor) -> None:
        super().update(probabilities(outputs), target)

    def forward(self, outputs: Tensor, target: Tensor) -> dict[str, Any]:
        return super().forward(probabilities(outputs), target)


def classification_metrics(classes: Callable[[], int], bins: int) -> list[Metric]:
    """Metrics of logits of so many classes, the calibration error with `bins` bins."""

    def of(kind: Callable[..., Any], **options: Any) -> Callable[[], Any]:
        # targets come from `Task.encode`, so checking each batch would only cost device syncs
        return lambda: kind(num_classes=classes(), validate_args=False, **options)

    macro, none = partial(of, average="macro"), partial(of, average="none")
    paired = jackknife.per_example
    return [
        Metric("accuracy", of(MulticlassAccuracy, average="micro"), True, "share",
               jackknife.right, right_or_wrong=True),
        Metric("auroc", none(OneVsRestAUROC), True, "share"),
        Metric("balanced_accuracy", none(BalancedAccuracy), True, "share",
               paired(jackknife.balanced_accuracy)),
        Metric("calibration_error", of(CalibrationError, n_bins=bins, norm="l1"), False, "share"),
        Metric("f1_macro", macro(MulticlassF1Score), True, "share", paired(jackknife.f1)),
        Metric("matthews", none(Matthews), True, "correlation", paired(jackknife.matthews)),
        Metric("precision_macro", macro(MulticlassPrecision), True, "share",
               paired(jackknife.precision)),
        Metric("recall_macro", macro(MulticlassRecall), True, "share", paired(jackknife.recall)),
        Metric("precision/<class>", none(Precisions), True, "share"),
        Metric("recall/<class>", none(Recalls), True, "share"),
        Metric("f1/<class>", none(F1Scores), True, "share"),
    ]
