"""Any number of labels for each example."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torchmetrics import MetricCollection

from ftlab.backbones.outside import Lines, PlainOutputs
from ftlab.errors import InputError
from ftlab.tasks.base import Task, direction
from ftlab.tasks.losses.base import at_least_float32
from ftlab.tasks.multi_label_metrics import (
    PER_LABEL,
    contributions,
    multi_label_metrics,
    probabilities,
)
from ftlab.tasks.naming import absent_class, class_name, flattened, name_order, unseen

_TELL = """
labels = {labels}

def tell(outputs):  # the labels of each, and the probabilities of all labels
    scores = outputs.float().sigmoid().tolist()
    chosen = [[name for name, score in zip(labels, row) if score > {threshold}] for row in scores]
    return chosen, scores
"""


class MultiLabel(Task):
    """Predict which of the labels that train names an example has; none, one or several.

    A raw label is a text such as `politics|economy`, or a list of labels (.jsonl, .parquet). The
    loss is the binary cross-entropy, mean over examples and labels. Metrics: mean average
    precision over the labels that a split holds, micro and macro F1, accuracy (all labels of an
    example right), and average precision and F1 of each label.

    Args:
        separator: between the labels of a text.
        nothing: the text of an example without labels, since an empty cell is taken for a
            missing one; null where there are none.
        threshold: of the probability, above which a label is predicted.
    """

    specimens: ClassVar[Sequence[Any]] = (["0"], ["1"])
    problem_type = "multi_label_classification"
    auto_classes: ClassVar[tuple[str, ...]] = (
        "AutoModelForSequenceClassification",
        "AutoModelForImageClassification",
        "AutoModelForAudioClassification",
    )

    def __init__(self, separator: str = "|", nothing: str | None = None,
                 threshold: float = 0.5) -> None:
        if not separator:
            raise ValueError(f"separator must not be empty, got {separator!r}")
        if not 0 < threshold < 1:
            raise ValueError(f"threshold must be between 0 and 1, got {threshold}")
        self.separator = separator
        self.nothing = nothing
        self.threshold = threshold
        self._labels: list[str] = []
        self._index: dict[str, int] = {}
        self._counts: list[int] = []

    @property
    def default_metric(self) -> str:
        return "f1_micro"

    def fit(self, labels: Sequence[Any]) -> None:
        """Learn the labels and their counts.

        Raises:
            InputError: a label is missing, or there are fewer than two.
        """
        counts = Counter(name for i, label in enumerate(labels)
                         for name in self._names(label, f"training label {i}"))
        if len(counts) < 2:
            raise InputError(f"MultiLabel needs at least two labels in train, found "
                             f"{', '.join(counts) or 'none'}",
                             f"check the column and the separator, which is {self.separator!r}")
        self._labels = sorted(counts, key=name_order)
        self._index = {name: i for i, name in enumerate(self._labels)}
        self._counts = [counts[name] for name in self._labels]

    def _names(self, label: Any, where: str) -> list[str]:
        """The labels in a raw label, each once."""
        if isinstance(label, list | tuple):
            parts = [class_name(part, f"{where}: a label") for part in label]
        else:
            text = class_name(label, where)
            parts = [] if text == self.nothing else text.split(self.separator)
        names = list(dict.fromkeys(part.strip() for part in parts))
        if "" in names:
            raise InputError(f"{where}: {label!r} has an empty label in it",
                             f"put one {self.separator!r} between two labels and none at an end")
        return names

    @property
    def labels(self) -> list[str]:
        """Names of the labels, in the order of the logits."""
        if not self._labels:
            raise RuntimeError("MultiLabel needs `fit` with the training labels first")
        return self._labels

    @property
    def names(self) -> Sequence[str]:
        return self.labels

    @property
    def outputs(self) -> int:
        return len(self.labels)

    def encode(self, label: Any, where: str) -> list[float]:
        """1.0 for each label that the example has, else 0.0 (L)."""
        target = [0.0] * self.outputs
        for name in self._names(label, where):
            if name not in self._index:
                raise unseen(f"{where}: label", name, self.labels)
            target[self._index[name]] = 1.0
        return target

    def loss(self, outputs: Tensor, batch: Mapping[str, Any]) -> Tensor:
        logits = at_least_float32(outputs)
        return binary_cross_entropy_with_logits(logits, batch["target"].to(logits.dtype))

    def slope(self, outputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        logits = at_least_float32(outputs)
        wanted = target.to(logits.dtype).expand_as(logits)
        loss = binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        gradient = (logits.sigmoid() - wanted) / (logits.shape[-1] * logits.shape[-2])
        return loss.mean(dim=(-2, -1)), gradient

    def metrics(self) -> MetricCollection:
        return multi_label_metrics(self.outputs, self.threshold)

    def higher_is_better(self, metric: str) -> bool:
        """Whether more of a metric is better; `f1/<label>` and its like are known too.

        Raises:
            InputError: there is no such metric.
        """
        # the direction does not depend on the labels, and a study asks before it has any
        known = {name: bool(value.higher_is_better)
                 for name, value in multi_label_metrics(2, self.threshold).items()}
        per_label = {name: known.pop(name) for name in PER_LABEL}
        return direction(metric, known, self, per_label, self._labels)

    def unmeasurable(self, metric: str, targets: Sequence[Sequence[float]]) -> str:
        present = {name for row in targets for name, holds in zip(self.labels, row, strict=True)
                   if holds}
        if metric in ("mean_average_precision", "f1_micro", "f1_macro") and not present:
            return f"none of the {len(targets)} examples has a label"
        return absent_class(metric, PER_LABEL, self.labels, present)

    def scalars(self, computed: Mapping[str, Tensor]) -> dict[str, float]:
        """Computed metrics as plain numbers; a vector over labels becomes `<name>/<label>`."""
        return flattened(computed, dict(zip(PER_LABEL, PER_LABEL, strict=True)), self.labels)

    def records(self, outputs: Tensor, target: Tensor) -> dict[str, list[Any]]:
        """Target and prediction as lists of labels, scores as L probabilities."""
        scores = probabilities(outputs.detach()).cpu()
        return {"target": self._named(target > 0.5),
                "prediction": self._named(scores > self.threshold),
                "scores": scores.tolist()}

    def _named(self, chosen: Tensor) -> list[list[str]]:
        return [[name for name, is_one in zip(self.labels, row, strict=True) if is_one]
                for row in chosen.tolist()]

    def contributions(self, metric: str,
                      records: Mapping[str, Sequence[Any]]) -> NDArray[np.float64] | None:
        # every label of the task, since one that no record names counts as F1 0
        labels = len(records["scores"][0]) if records["scores"] else 0
        return contributions(metric, records["target"], records["prediction"], labels)

    def summary(self) -> dict[str, Any]:
        counts = dict(zip(self.labels, self._counts, strict=True))
        return {"labels": self.labels, "train_counts": counts}

    @staticmethod
    def stack(targets: Sequence[Any]) -> Tensor:
        """Targets (B, L) of 0 and 1."""
        return torch.tensor(targets, dtype=torch.float32)

    def outside(self) -> PlainOutputs:
        code = _TELL.format(labels=self.labels, threshold=self.threshold)
        return PlainOutputs(Lines(code), scores=True)
