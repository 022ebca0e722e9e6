"""Labelled boxes in images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from ftlab.backbones.base import OutputType
from ftlab.backbones.export_code import CodeLines, PlainOutputs
from ftlab.backbones.task_model import Batch, Outputs, TaskModel
from ftlab.errors import InputError
from ftlab.tasks.base import Predictions, Task
from ftlab.tasks.boxes import Box, precision_recall, same_boxes
from ftlab.tasks.class_names import absent_class, unseen
from ftlab.tasks.detection_metrics import WHOLE, detection_metrics
from ftlab.tasks.losses.base import at_least_float32
from ftlab.tasks.metric import Metric, Records
from ftlab.tasks.spelling import Classes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_TELL = """
classes = {classes}

def tell(boxes, labels, scores):  # the objects of an image, and how sure each is
    return [{{"label": classes[label], "box": box}}
            for label, box in zip(labels, boxes.tolist())], scores.tolist()
"""


class Detection(Task):
    """Find the objects of an image: a box, a class and a score for each.

    A label is the list of an image's `Box`es, which may be empty. The loss is the detector's own,
    the sum of its parts. Metrics are COCO's: `map` is the mean average precision over classes and
    over intersections over union of 0.5 to 0.95, `map_50` and `map_75` at one of them, `mar_100`
    the mean recall of the best 100 detections an image; `map/<class>` and `map_50/<class>` for
    every class that a split holds objects of. All are nan where a split holds none of any class.

    Lin, Maire, Belongie, Hays, Perona, Ramanan, Dollár, Zitnick (2014),
    https://arxiv.org/abs/1405.0312
    """

    output_type: ClassVar[OutputType] = "boxes"
    auto_classes: ClassVar[tuple[str, ...]] = ("AutoModelForObjectDetection",)

    def __init__(self) -> None:
        self._classes = Classes()

    @property
    def default_metric(self) -> str:
        return "map"

    def fit(self, labels: Sequence[Sequence[Box]]) -> None:
        """Learn the class names and how many objects each has.

        Raises:
            InputError: no image has an object.
        """
        classes = Classes(box.label for boxes in labels for box in boxes if not box.ignored)
        if not classes.names:
            raise InputError("no training image has an object", "name annotated images as train")
        self._classes = classes

    @property
    def classes(self) -> list[str]:
        """Class names, in the order of the labels."""
        if not self._classes.names:
            raise RuntimeError("Detection needs `fit` with the training labels first")
        return self._classes.names

    @property
    def names(self) -> Sequence[str]:
        return self.classes

    @property
    def outputs(self) -> int:
        return len(self.classes)

    def encode(self, label: Sequence[Box], where: str) -> dict[str, Tensor]:
        """`boxes` (N, 4), `labels` (N,) and `ignored` (N,) of an image."""
        places = [self._classes.place(box.label) for box in label]
        for number, (box, place) in enumerate(zip(label, places, strict=True), 1):
            if place is None and not box.ignored:
                raise unseen(f"{where}, object {number}: class", box.label, self.classes)
        kept = [box for box, place in zip(label, places, strict=True) if place is not None]
        return {
            "boxes": torch.tensor([box.corners for box in kept]).float().reshape(-1, 4),
            "labels": torch.tensor([place for place in places if place is not None],
                                   dtype=torch.long),
            "ignored": torch.tensor([box.ignored for box in kept], dtype=torch.bool),
        }

    def named(self, label: Sequence[Box], where: str) -> list[str]:
        return [box.label for box in label]

    def loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        return torch.stack([at_least_float32(part) for part in outputs["losses"].values()]).sum()

    def predict(self, model: TaskModel, batch: Batch,
                outputs: Outputs | None = None) -> Predictions:
        """Detections of each image: `boxes`, `scores`, `labels`."""
        return (model(batch) if outputs is None else outputs)["detections"]

    def metrics(self) -> list[Metric]:
        return detection_metrics(lambda: self.outputs)

    @property
    def metric_classes(self) -> Sequence[str]:
        return self._classes.names

    def unmeasurable(self, metric: str, targets: Sequence[Mapping[str, Tensor]]) -> str:
        present = {self.classes[label] for target in targets
                   for label in target["labels"][~target["ignored"]].tolist()}
        if metric in WHOLE and not present:
            return f"none of the {len(targets)} images has an object"
        return absent_class(metric, self.classes, present)

    def records(self, predictions: Predictions, target: Any) -> dict[str, list[Any]]:
        """Objects, detections and their scores, in pixels of the image as it was given."""
        rows: dict[str, list[Any]] = {"target": [], "prediction": [], "scores": []}
        for boxes, true in zip(predictions, target, strict=True):
            scale = true["scale"].repeat(2) if "scale" in true else torch.ones(4)
            scale = scale.to(true["boxes"].device)
            objects = self._objects(true["boxes"] * scale, true["labels"])
            ignored = true["ignored"].tolist()
            rows["target"].append([box | {"ignored": flag} for box, flag
                                   in zip(objects, ignored, strict=True)])
            rows["prediction"].append(self._objects(boxes["boxes"] * scale, boxes["labels"]))
            rows["scores"].append(boxes["scores"].tolist())
        return rows

    def _objects(self, boxes: Tensor, labels: Tensor) -> list[dict[str, Any]]:
        return [{"label": self.classes[label], "box": corners}
                for corners, label in zip(boxes.tolist(), labels.tolist(), strict=True)]

    def figures(self, records: Records) -> dict[str, Figure]:
        """Precision against recall at an intersection over union of 0.5, a line a class."""
        # matplotlib takes a quarter of a second to import; most processes draw nothing
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5, 4), layout="constrained")
        axes = figure.add_subplot(title="An object is found at an overlap (IoU) of at least 0.5",
                                  xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
        for name in self.classes:
            curve = precision_recall(records, name)
            axes.plot(curve.recall, curve.precision, label=f"{name} ({curve.objects})")
        axes.legend(title="class (objects)")
        return {"precision_recall": figure}

    def summary(self) -> dict[str, Any]:
        counts = dict(zip(self.classes, self._classes.counts, strict=True))
        return {"classes": self.classes, "train_counts": counts}

    @staticmethod
    def stack(targets: Sequence[Any]) -> list[Any]:
        """One mapping an image: their numbers of objects differ."""
        return list(targets)

    def table(self, columns: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        """A row a box: `id` of its image, `label`, corners and `score`; an empty one without any."""
        corners = ("x1", "y1", "x2", "y2")
        rows: list[tuple[Any, ...]] = []
        for name, boxes, scores in zip(columns["id"], columns["prediction"], columns["scores"],
                                       strict=True):
            rows += [(name, box["label"], *box["box"], score)
                     for box, score in zip(boxes, scores, strict=True)]
            if not boxes:
                rows.append((name, *[None] * 6))
        return {title: [row[place] for row in rows]
                for place, title in enumerate(("id", "label", *corners, "score"))}

    def export_code(self) -> PlainOutputs:
        return PlainOutputs(CodeLines(_TELL.format(classes=self.classes)), scores=True)

    def agrees(self, given: Mapping[str, Any], expected: Mapping[str, Any],
               tolerance: float) -> bool:
        """The same boxes with the same labels and scores, in any order: equal scores have none."""
        return same_boxes(given, expected, tolerance)
