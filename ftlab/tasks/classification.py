"""One class of several for each example; two classes are binary classification."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from ftlab.backbones.export_code import CodeLines, PlainOutputs
from ftlab.errors import InputError
from ftlab.tasks.base import Task
from ftlab.tasks.class_names import absent_class, class_name, unseen
from ftlab.tasks.classification_metrics import ClassificationCollection, classification_metrics
from ftlab.tasks.classification_metrics import probabilities as softmax
from ftlab.tasks.foreign_answers import log_shares, numbers_of
from ftlab.tasks.losses.base import Loss, one_hot
from ftlab.tasks.losses.cross_entropy import CrossEntropy
from ftlab.tasks.metric import Metric, Records, fresh
from ftlab.tasks.spelling import Classes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_TELL = """
classes = {classes}

def tell(outputs):  # the class of each, and the probabilities of all classes
    scores = outputs.float().softmax(dim=-1)
    return [classes[i] for i in scores.argmax(dim=-1)], scores.tolist()
"""


class Classification(Task):
    """Predict one of the classes that the training labels name.

    A label is its text: 3 and "3" are the same class. Classes are sorted, numbers by value.
    Metrics: accuracy, balanced accuracy, Matthews' correlation, macro and per-class precision,
    recall and F1, AUROC (one class against the rest, mean over the classes that a split holds)
    and the expected calibration error.

    Args:
        loss: what training minimises; `CrossEntropy()` where none is named.
        calibration_bins: equal-width bins of confidence for the calibration error.
    """

    one_class: ClassVar[bool] = True
    problem_type = "single_label_classification"
    auto_classes: ClassVar[tuple[str, ...]] = (
        "AutoModelForSequenceClassification",
        "AutoModelForImageClassification",
        "AutoModelForAudioClassification",
    )

    def __init__(self, loss: Loss | None = None, calibration_bins: int = 15) -> None:
        if calibration_bins < 1:
            raise ValueError(f"calibration_bins must be at least 1, got {calibration_bins}")
        # a copy, because `fit` writes into it and two data sets may be given the same object
        self._loss = CrossEntropy() if loss is None else copy.deepcopy(loss)
        if self._loss.reads_counts:
            self.kept_of_targets = "the loss reads how many examples each class has"
        self.calibration_bins = calibration_bins
        self._classes = Classes()

    @property
    def convex(self) -> bool:
        return self._loss.convex

    @property
    def default_metric(self) -> str:
        return "accuracy"

    def fit(self, labels: Sequence[Any]) -> None:
        """Learn the class names and their counts.

        Raises:
            InputError: a label is missing, or there are fewer than two classes.
        """
        classes = Classes(class_name(label, f"training label {i}")
                          for i, label in enumerate(labels))
        if len(classes.names) < 2:
            names = f"only {classes.names[0]!r}" if classes.names else "none"
            raise InputError(
                f"classification needs at least two classes in train, found {names}",
                "name another label column, or train on more examples",
            )
        self._classes = classes
        self._loss.fit(classes.counts)

    @property
    def classes(self) -> list[str]:
        """Class names, in the order of the logits."""
        if not self._classes.names:
            raise RuntimeError("Classification needs `fit` with the training labels first")
        return self._classes.names

    @property
    def names(self) -> Sequence[str]:
        return self.classes

    @property
    def outputs(self) -> int:
        return len(self.classes)

    def encode(self, label: Any, where: str) -> int:
        name = class_name(label, where)
        place = self._classes.place(name)
        if place is None:
            raise unseen(f"{where}: label", name, self.classes)
        return place

    def stratum(self, label: Any) -> Hashable | None:
        name = class_name(label, "a label to stratify by")
        place = self._classes.place(name)
        return name if place is None else self.classes[place]

    def named(self, label: Any, where: str) -> list[str]:
        return [class_name(label, where)]

    def loss(self, outputs: Tensor, batch: Mapping[str, Any]) -> Tensor:
        return self._loss(outputs, batch["target"])

    @property
    def of_examples(self) -> bool:
        return type(self._loss).losses is not Loss.losses

    def losses(self, outputs: Tensor, batch: Mapping[str, Any]) -> Tensor | None:
        return self._loss.losses(outputs, batch["target"])

    def slope(self, outputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor] | None:
        return self._loss.slope(outputs, target)

    def weight(self, batch: Mapping[str, Any]) -> float:
        return self._loss.weight(batch["target"])

    def weights(self, batch: Mapping[str, Any]) -> Tensor:
        return self._loss.weights(batch["target"])

    def answer(self, prediction: Any, scores: Any, where: str) -> Tensor:
        """Logarithms of the scores, which are probabilities; of the one class without them."""
        place = self.encode(prediction, where)
        if scores is None:
            return log_shares(one_hot(torch.tensor(place), torch.zeros(self.outputs)))
        shares = numbers_of(scores, self.classes, where)
        if shares[place] < shares.max():
            raise InputError(f"{where}: the prediction is {self.classes[place]!r}, and the scores "
                             f"prefer {self.classes[int(shares.argmax())]!r}",
                             f"order scores as the classes are: {', '.join(self.classes[:10])}")
        return log_shares(shares)

    def metrics(self) -> list[Metric]:
        return classification_metrics(lambda: self.outputs, self.calibration_bins)

    @property
    def metric_classes(self) -> Sequence[str]:
        return self._classes.names

    def collection(self) -> MetricCollection:
        return ClassificationCollection(fresh(self.metrics()))

    def unmeasurable(self, metric: str, targets: Sequence[int]) -> str:
        present = {self.classes[target] for target in targets}
        if metric in ("auroc", "matthews") and len(present) < 2:
            return f"it tells classes apart, and all {len(targets)} examples are {min(present)!r}"
        return absent_class(metric, self.classes, present)

    def records(self, outputs: Tensor, target: Tensor) -> dict[str, list[Any]]:
        """Target and prediction by class name, scores as C probabilities."""
        scores = softmax(outputs.detach()).cpu()
        return {
            "target": [self.classes[i] for i in target.tolist()],
            "prediction": [self.classes[i] for i in scores.argmax(dim=-1).tolist()],
            "scores": scores.tolist(),
        }

    def figures(self, records: Records) -> dict[str, Figure]:
        """The confusion matrix."""
        # matplotlib takes a quarter of a second to import; most processes draw nothing
        from ftlab.tasks.confusion import confusion_figure, confusion_matrix

        matrix = confusion_matrix(records["target"], records["prediction"], self.classes)
        return {"confusion_matrix": confusion_figure(matrix, self.classes)}

    def summary(self) -> dict[str, Any]:
        counts = dict(zip(self.classes, self._classes.counts, strict=True))
        return {"classes": self.classes, "train_counts": counts}

    def export_code(self) -> PlainOutputs:
        return PlainOutputs(CodeLines(_TELL.format(classes=self.classes)), scores=True)
