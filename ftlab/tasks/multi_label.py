"""Any number of labels for each example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torchmetrics import MetricCollection

from ftlab.backbones.export_code import CodeLines, PlainOutputs
from ftlab.errors import InputError
from ftlab.tasks.base import Task
from ftlab.tasks.class_names import absent_class, unseen
from ftlab.tasks.foreign_answers import log_odds, numbers_of
from ftlab.tasks.label_lists import (
    MEND,
    Form,
    LabelList,
    check_separator,
    form_of,
    read_label,
)
from ftlab.tasks.losses.base import at_least_float32
from ftlab.tasks.metric import Metric, fresh
from ftlab.tasks.multi_label_metrics import MultiLabelCollection, multi_label_metrics, probabilities
from ftlab.tasks.spelling import Classes, is_number, key, renamed

_TELL = """
labels = {labels}

def tell(outputs):  # the labels of each, and the probabilities of all labels
    scores = outputs.float().sigmoid().tolist()
    chosen = [[name for name, score in zip(labels, row) if score > {threshold}] for row in scores]
    return chosen, scores
"""


class MultiLabel(Task):
    """Predict which of the labels that train names an example has; none, one or several.

    A raw label is a text such as `politics|economy`, a list of names (.jsonl, .parquet), or a 0 or
    1 for every label: `[1, 0, 1]` by position, or `{politics: 1, economy: 0}` by name; a text may
    write each of them. All examples have one form. The loss is the binary cross-entropy, mean over
    examples and labels. Metrics: mean average precision over the labels that a split holds, micro
    and macro F1, accuracy (all labels of an example right), and average precision and F1 of each
    label.

    Args:
        separator: between the labels of a text.
        nothing: the text of an example without labels, since an empty cell is taken for a
            missing one; null where there are none.
        threshold: of the probability, above which a label is predicted.
        labels: names of all labels, in the order of lists of 0 and 1; null for `label_0`,
            `label_1`, ..., and for the names that train has where examples name their labels.
    """

    problem_type = "multi_label_classification"
    auto_classes: ClassVar[tuple[str, ...]] = (
        "AutoModelForSequenceClassification",
        "AutoModelForImageClassification",
        "AutoModelForAudioClassification",
    )

    def __init__(self, separator: str = "|", nothing: str | None = None,
                 threshold: float = 0.5, labels: list[str] | None = None) -> None:
        if not separator:
            raise ValueError(f"separator must not be empty, got {separator!r}")
        if not 0 < threshold < 1:
            raise ValueError(f"threshold must be between 0 and 1, got {threshold}")
        self.separator = separator
        self.nothing = nothing
        self.threshold = threshold
        if labels is not None and len({key(name.strip()) for name in labels} - {""}) < max(
                2, len(labels)):
            raise ValueError(f"labels must be at least two names, all different, got {labels}")
        self.given = labels
        self._form: Form = "names"
        self._classes = Classes()

    @property
    def convex(self) -> bool:
        return True

    @property
    def default_metric(self) -> str:
        return "f1_micro"

    def fit(self, labels: Sequence[Any]) -> None:
        """Learn the labels, their counts, and how examples write them.

        Raises:
            InputError: a label is missing, or there are fewer than two.
        """
        lists = [self._read(label, f"training label {i}") for i, label in enumerate(labels)]
        self._form, width = form_of(lists)
        order = self.given
        if self._form == "positions":
            order = order or [f"label_{place}" for place in range(width)]
            if len(order) != width:
                raise InputError(f"train's labels are lists of {width} numbers 0 and 1, and the "
                                 f"task's labels name {len(order)}", "name each position once")
            self._classes = Classes((name for label in lists if label.flags is not None
                                   for name, flag in zip(order, label.flags, strict=False)
                                   if flag), order)
            return
        if self._form == "names" and order is None and all(
                isinstance(label, str) for label in labels):
            check_separator(lists, self.separator)
        if self._form == "keys" and order is None:
            order = Classes(name for label in lists if label.keyed for name in label.names).names
        self._classes = Classes((name for label in lists for name in self._chosen(label)), order)
        if len(self._classes.names) < 2:
            raise InputError(f"MultiLabel needs at least two labels in train, found "
                             f"{', '.join(self._classes.names) or 'none'}",
                             f"check the column and the separator, which is {self.separator!r}")

    def _read(self, label: Any, where: str) -> LabelList:
        return read_label(label, self.separator, self.nothing, where)

    def _chosen(self, label: LabelList) -> list[str]:
        """The names that an example has, each once."""
        if not label.keyed:
            return list(dict.fromkeys(label.names))
        assert label.flags is not None
        return [name for name, flag in zip(label.names, label.flags, strict=True) if flag]

    @property
    def labels(self) -> list[str]:
        """Names of the labels, in the order of the logits."""
        if not self._classes.names:
            raise RuntimeError("MultiLabel needs `fit` with the training labels first")
        return self._classes.names

    @property
    def names(self) -> Sequence[str]:
        return self.labels

    @property
    def outputs(self) -> int:
        return len(self.labels)

    def encode(self, label: Any, where: str) -> list[float]:
        """1.0 for each label that the example has, else 0.0 (L)."""
        read = self._read(label, where)
        self._check(read, label, where)
        if self._form == "positions":
            assert read.flags is not None
            return [float(flag) for flag in read.flags]
        target = [0.0] * self.outputs
        for name in self._chosen(read):
            place = self._classes.place(name)
            if place is None:
                raise unseen(f"{where}: label", name, self.labels)
            target[place] = 1.0
        return target

    def _check(self, read: LabelList, label: Any, where: str) -> None:
        """Refuse an example whose label has another form than train's."""
        if not read.has_form(self._form, self.outputs) or (
                self._form == "names" and read.flags and len(read.flags) > 1
                and not all(is_number(name) for name in self.labels)):
            raise InputError(f"{where}: label {label!r}, where train has {self._described()}", MEND)
        if self._form == "keys" and set(map(key, read.names)) != set(map(key, self.labels)):
            raise InputError(f"{where}: label {label!r} has other names than train's "
                             f"{', '.join(self.labels)}", "give every example a 0 or 1 for each")

    def _described(self) -> str:
        return {"names": f"names of labels: {', '.join(self.labels[:10])}",
                "positions": f"lists of {self.outputs} numbers 0 and 1",
                "keys": "a 0 or 1 under the name of each label"}[self._form]

    def named(self, label: Any, where: str) -> list[str]:
        read = self._read(label, where)
        return read.names if read.flags is None or read.keyed else []

    def renamed(self, label: Any, classes: Mapping[str, str], where: str) -> Any:
        """A label with its names changed; a whole text may have a new name of its own."""
        if isinstance(label, str) and label in classes:
            return classes[label]
        read = self._read(label, where)
        if read.flags is not None and (read.keyed or len(read.flags) > 1):
            raise InputError(f"{where}: classes rename labels by name, and {label!r} is a 0 or 1 "
                             "for each", "name them with the task's labels: [...]")
        return [renamed(name, classes, where) for name in read.names]

    def loss(self, outputs: Tensor, batch: Mapping[str, Any]) -> Tensor:
        logits = at_least_float32(outputs)
        return binary_cross_entropy_with_logits(logits, batch["target"].to(logits.dtype))

    def losses(self, outputs: Tensor, batch: Mapping[str, Any]) -> Tensor:
        logits = at_least_float32(outputs)
        return binary_cross_entropy_with_logits(
            logits, batch["target"].to(logits.dtype), reduction="none").mean(dim=1)

    def slope(self, outputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        logits = at_least_float32(outputs)
        wanted = target.to(logits.dtype).expand_as(logits)
        loss = binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        gradient = (logits.sigmoid() - wanted) / (logits.shape[-1] * logits.shape[-2])
        return loss.mean(dim=(-2, -1)), gradient

    def answer(self, prediction: Any, scores: Any, where: str) -> Tensor:
        """Logits of the scores, which are probabilities; of certainty without them."""
        chosen = torch.tensor(self.encode(prediction, where))
        if scores is None:
            return log_odds(chosen)
        shares = numbers_of(scores, self.labels, where)
        if not torch.equal(shares > self.threshold, chosen > 0.5):
            raise InputError(f"{where}: the scores above {self.threshold:g} are not those of the "
                             "labels predicted", f"order scores as the labels are "
                             f"({', '.join(self.labels[:10])}), or set the task's threshold")
        return log_odds(shares)

    def metrics(self) -> list[Metric]:
        return multi_label_metrics(lambda: self.outputs, self.threshold)

    @property
    def metric_classes(self) -> Sequence[str]:
        return self._classes.names

    def collection(self) -> MetricCollection:
        return MultiLabelCollection(fresh(self.metrics()))

    def unmeasurable(self, metric: str, targets: Sequence[Sequence[float]]) -> str:
        present = {name for row in targets for name, holds in zip(self.labels, row, strict=True)
                   if holds}
        if metric in ("mean_average_precision", "f1_micro", "f1_macro") and not present:
            return f"none of the {len(targets)} examples has a label"
        return absent_class(metric, self.labels, present)

    def records(self, outputs: Tensor, target: Tensor) -> dict[str, list[Any]]:
        """Target and prediction as lists of labels, scores as L probabilities."""
        scores = probabilities(outputs.detach()).cpu()
        return {"target": self._named(target > 0.5),
                "prediction": self._named(scores > self.threshold),
                "scores": scores.tolist()}

    def _named(self, chosen: Tensor) -> list[list[str]]:
        return [[name for name, is_one in zip(self.labels, row, strict=True) if is_one]
                for row in chosen.tolist()]

    def summary(self) -> dict[str, Any]:
        counts = dict(zip(self.labels, self._classes.counts, strict=True))
        return {"labels": self.labels, "train_counts": counts}

    @staticmethod
    def stack(targets: Sequence[Any]) -> Tensor:
        """Targets (B, L) of 0 and 1."""
        return torch.tensor(targets, dtype=torch.float32)

    def export_code(self) -> PlainOutputs:
        code = _TELL.format(labels=self.labels, threshold=self.threshold)
        return PlainOutputs(CodeLines(code), scores=True)
