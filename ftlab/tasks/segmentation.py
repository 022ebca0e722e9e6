"""A class for each pixel of an image."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ftlab.backbones.base import OutputType
from ftlab.backbones.task_model import Batch
from ftlab.errors import InputError
from ftlab.tasks.base import Task
from ftlab.tasks.class_mask import IGNORED_PIXEL, ClassMask
from ftlab.tasks.class_names import absent_class, unseen
from ftlab.tasks.losses.base import Loss
from ftlab.tasks.losses.cross_entropy import CrossEntropy
from ftlab.tasks.metric import Metric, Records
from ftlab.tasks.segmentation_metrics import at_size, confusion, segmentation_metrics
from ftlab.tasks.spelling import Classes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Segmentation(Task):
    """Predict the class of every pixel (semantic segmentation).

    A label is an image's `ClassMask`. The network's logits (B, C, h, w) are resized to the mask's
    own size for the loss, the metrics and the predictions; pixels without a class count in none of
    them. The metrics are over all pixels of a split, from one confusion matrix: mean and per-class
    intersection over union, macro and per-class Dice, accuracy of pixels. Prediction records have
    each image's part in that matrix, and what was predicted as COCO's run-lengths, a class each.

    Args:
        loss: what training minimises; `CrossEntropy()` where none is named. A pixel is what an
            example is to a classification: counts and weights of classes are of pixels, and the
            loss is their mean over a batch. A loss that is not a mean over its rows (`Dice`) is
            taken of each image, and images count alike.
    """

    output_type: ClassVar[OutputType] = "pixels"
    auto_classes: ClassVar[tuple[str, ...]] = ("AutoModelForSemanticSegmentation",)

    def __init__(self, loss: Loss | None = None) -> None:
        # a copy, because `fit` writes into it and two data sets may be given the same object
        self._loss = CrossEntropy() if loss is None else copy.deepcopy(loss)
        if self._loss.reads_counts:
            self.kept_of_targets = "the loss reads how many pixels each class has"
        self._classes = Classes()
        self._pixels: list[int] = []

    @property
    def default_metric(self) -> str:
        return "mean_iou"

    def fit(self, labels: Sequence[ClassMask]) -> None:
        """Learn the class names and how many pixels each has.

        Raises:
            InputError: there are fewer than two classes, or none of one that the loss weighs.
        """
        given = dict.fromkeys(label.names for label in labels)  # in their order, or a mask its own
        order = next(iter(given)) if len(given) == 1 else Classes(
            name for names in given for name in names).names
        classes = Classes(order=order)
        if len(classes.names) < 2:
            names = f"only {classes.names[0]!r}" if classes.names else "none"
            raise InputError(f"segmentation needs at least two classes in train, found {names}",
                             "name more classes, or another value to ignore: (null for none)")
        counts = [0] * len(classes.names)
        for label in labels:
            for name, pixels in zip(label.names, label.pixels, strict=True):
                counts[classes.names.index(name)] += pixels
        if self._loss.reads_counts and 0 in counts:
            raise InputError(f"class {classes.names[counts.index(0)]!r} has no pixel in the training masks, "
                             f"and {type(self._loss).__name__} weighs classes by their pixels",
                             "leave the class out of classes, or take CrossEntropy")
        self._loss.fit(counts)
        self._classes, self._pixels = classes, counts

    @property
    def classes(self) -> list[str]:
        """Class names, in the order of the logits."""
        if not self._classes.names:
            raise RuntimeError("Segmentation needs `fit` with the training masks first")
        return self._classes.names

    @property
    def names(self) -> Sequence[str]:
        return self.classes

    @property
    def outputs(self) -> int:
        return len(self.classes)

    def encode(self, label: ClassMask, where: str) -> ClassMask:
        """The mask with the training masks' places."""
        if list(label.names) == self.classes:
            return label
        table = np.full(256, IGNORED_PIXEL, np.uint8)
        for old, name in enumerate(label.names):
            place = self._classes.place(name)
            if place is None and label.pixels[old]:
                raise unseen(f"{where}: class", name, self.classes)
            table[old] = IGNORED_PIXEL if place is None else place
        return ClassMask.of(self.classes, table[label.places])

    def named(self, label: ClassMask, where: str) -> list[str]:
        return label.present

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        weights = self.weights(batch)
        total = (self.losses(outputs, batch) * weights).sum()
        return total / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The mean over the pixels of each image; 0 where none counts."""
        return torch.stack([self._of_image(logits, mask)
                            for logits, mask in zip(outputs, batch["target"], strict=True)])

    def _of_image(self, logits: Tensor, mask: Tensor) -> Tensor:
        rows = at_size(logits, mask.shape).flatten(1).T  # (pixels, C)
        counted, target = _pixels(mask)
        if not self._of_rows:
            return self._loss(rows[counted], target[counted]) if bool(counted.any()) else 0 * rows.sum()
        each = self._loss.losses(rows, target)
        assert each is not None
        weights = (self._loss.weights(target) * counted).to(each.dtype)
        return (each * weights).sum() / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)

    @property
    def _of_rows(self) -> bool:
        """True where the loss is a mean over pixels."""
        return type(self._loss).losses is not Loss.losses

    def weight(self, batch: Batch) -> float:
        """Pixels that count, or their weights' sum; images where the loss is of whole images."""
        return float(self.weights(batch).sum())

    def weights(self, batch: Batch) -> Tensor:
        pairs = [_pixels(mask) for mask in batch["target"]]
        if not self._of_rows:
            return torch.stack([counted.any().float() for counted, _ in pairs])
        return torch.stack([(self._loss.weights(target) * counted).sum() for counted, target in pairs])

    def metrics(self) -> list[Metric]:
        return segmentation_metrics(lambda: self.outputs)

    @property
    def metric_classes(self) -> Sequence[str]:
        return self._classes.names

    def unmeasurable(self, metric: str, targets: Sequence[ClassMask]) -> str:
        present = {name for target in targets for name in target.present}
        if not present:
            return f"none of the {len(targets)} masks has a pixel that counts"
        return absent_class(metric, self.classes, present)

    def records(self, predictions: Tensor, target: Sequence[Tensor]) -> dict[str, list[Any]]:
        """Records of each image: its true classes and their pixels, the predicted mask, its confusion.

        A prediction is a list with an entry for each class in it, `label`, `size` and COCO's
        run-lengths `counts`; the scores are the cells of the confusion matrix with pixels in them.
        """
        rows: dict[str, list[Any]] = {"target": [], "prediction": [], "scores": []}
        for logits, mask in zip(predictions.detach(), target, strict=True):
            chosen = at_size(logits, mask.shape).argmax(dim=0)
            matrix = confusion(chosen, mask, self.outputs).cpu()
            rows["target"].append([{"label": name, "pixels": count} for name, count
                                   in zip(self.classes, matrix.sum(dim=1).tolist(), strict=True)
                                   if count])
            rows["prediction"].append(self._runs(chosen.cpu().numpy()))
            rows["scores"].append([{"target": self.classes[true], "prediction": self.classes[predicted],
                                    "pixels": int(matrix[true, predicted])}
                                   for true, predicted in matrix.nonzero().tolist()])
        return rows

    def _runs(self, chosen: np.ndarray) -> list[dict[str, Any]]:
        # it compiles nothing, but takes a tenth of a second to import; most processes predict no mask
        from faster_coco_eval.core import mask as coco

        places = np.unique(chosen)
        runs = coco.encode(np.asfortranarray(chosen[:, :, None] == places, dtype=np.uint8))
        return [{"label": self.classes[place], "size": list(run["size"]), "counts": _text(run["counts"])}
                for place, run in zip(places, runs, strict=True)]

    def figures(self, records: Records) -> dict[str, Figure]:
        """The confusion matrix of pixels."""
        # matplotlib takes a quarter of a second to import; most processes draw nothing
        from ftlab.tasks.confusion import confusion_figure

        matrix = np.zeros((self.outputs, self.outputs), dtype=np.int64)
        for cell in (cell for image in records["scores"] for cell in image):
            matrix[self.classes.index(cell["target"]), self.classes.index(cell["prediction"])] += cell["pixels"]
        return {"confusion_matrix": confusion_figure(matrix, self.classes)}

    def summary(self) -> dict[str, Any]:
        return {"classes": self.classes,
                "train_pixels": dict(zip(self.classes, self._pixels, strict=True))}

    @staticmethod
    def stack(targets: Sequence[Tensor]) -> list[Tensor]:
        """A mask an image, uint8 (H, W): their sizes may differ."""
        return list(targets)

    def table(self, columns: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        """A row a class of each image: its `id`, `label`, size of the mask and run-lengths."""
        rows = [(name, one["label"], *one["size"], one["counts"])
                for name, prediction in zip(columns["id"], columns["prediction"], strict=True)
                for one in prediction]
        titles = ("id", "label", "height", "width", "counts")
        return {title: [row[place] for row in rows] for place, title in enumerate(titles)}


def _pixels(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Which pixels count (P,), bool, and their classes (P,), int64; 0 for the others."""
    flat = mask.flatten()
    counted = flat != IGNORED_PIXEL
    return counted, flat.where(counted, 0).long()


def _text(counts: bytes | str) -> str:
    return counts.decode("ascii") if isinstance(counts, bytes) else counts
