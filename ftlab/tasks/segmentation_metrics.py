"""Intersection over union, Dice and pixel accuracy, from one confusion matrix over all pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torchmetrics
from torch import Tensor, nn

from ftlab.tasks.class_mask import IGNORED_PIXEL
from ftlab.tasks.jackknife import Array, over_present, pseudovalues, ratio
from ftlab.tasks.losses.base import at_least_float32
from ftlab.tasks.metric import Metric, Records


def segmentation_metrics(classes: Callable[[], int]) -> list[Metric]:
    """Metrics of masks of so many classes."""

    def make() -> MaskConfusion:
        return MaskConfusion(classes())

    return [Metric("mean_iou", make, True, "share", _per_example(_mean_iou)),
            Metric("dice_macro", make, True, "share", _per_example(_dice_macro)),
            Metric("pixel_accuracy", make, True, "share", _per_example(_pixel_accuracy)),
            Metric("iou/<class>", make, True, "share"),
            Metric("dice/<class>", make, True, "share")]


def at_size(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Logits (C, h, w) of an image at the size of its mask, (C, H, W), in float32 at least; bilinear."""
    logits = at_least_float32(logits)
    if tuple(logits.shape[1:]) == tuple(size):
        return logits
    return nn.functional.interpolate(logits[None], tuple(size), mode="bilinear", align_corners=False)[0]


def confusion(chosen: Tensor, mask: Tensor, classes: int) -> Tensor:
    """Pixels of an image by true class (rows) and predicted one, (C, C), int64.

    Args:
        chosen: predicted places (H, W).
        mask: true places (H, W), uint8; `IGNORED_PIXEL` does not count.
        classes: C.
    """
    counted = mask != IGNORED_PIXEL
    cells = mask[counted].long() * classes + chosen[counted]
    return torch.bincount(cells, minlength=classes**2).reshape(classes, classes)


class MaskConfusion(torchmetrics.Metric):
    """The confusion matrix of all pixels of all images, and what is computed from it.

    `compute` gives `mean_iou` and `dice_macro`, means over the classes that are in the masks or
    in the predictions; `pixel_accuracy`; `iou/<class>` and `dice/<class>` (C,), not a number for
    a class that is in neither. Dice is 2 |A and B| / (|A| + |B|), which is the F1 of pixels.

    Everingham, Van Gool, Williams, Winn, Zisserman (2010), https://doi.org/10.1007/s11263-009-0275-4

    Args:
        classes: how many there are.
    """

    full_state_update = False
    matrix: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.add_state("matrix", torch.zeros(classes, classes, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, target: Sequence[Tensor]) -> None:
        """Add images.

        Args:
            predictions: logits (B, C, h, w).
            target: places of each image (H, W), of sizes of their own.
        """
        for logits, mask in zip(predictions, target, strict=True):
            chosen = at_size(logits, mask.shape).argmax(dim=0)
            self.matrix += confusion(chosen, mask, self.classes)

    def compute(self) -> dict[str, Tensor]:
        """The metrics by name."""
        # whole numbers, which float32 could not hold, up to here
        hits, true, predicted = (counts.double() for counts in (
            self.matrix.diagonal(), self.matrix.sum(dim=1), self.matrix.sum(dim=0)))
        iou, dice = hits / (true + predicted - hits), 2 * hits / (true + predicted)  # 0 / 0: in neither
        values = {"mean_iou": iou.nanmean(), "dice_macro": dice.nanmean(),
                  "pixel_accuracy": hits.sum() / true.sum(), "iou/<class>": iou, "dice/<class>": dice}
        return {name: value.float() for name, value in values.items()}


def _mean_iou(sums: Array) -> Array:
    hits, true, predicted = sums[..., 0, :], sums[..., 1, :], sums[..., 2, :]
    union = true + predicted - hits
    return over_present(ratio(hits, union), union > 0)


def _dice_macro(sums: Array) -> Array:
    hits, true, predicted = sums[..., 0, :], sums[..., 1, :], sums[..., 2, :]
    return over_present(ratio(2 * hits, true + predicted), true + predicted > 0)


def _pixel_accuracy(sums: Array) -> Array:
    return ratio(sums[..., 0, :].sum(axis=-1), sums[..., 1, :].sum(axis=-1))


def _per_example(value: Callable[[Array], Array]) -> Callable[[Records], Array]:
    """Compute what each image adds to a metric of hits, true and predicted pixels (..., 3, C)."""

    def adds(records: Records) -> Array:
        return pseudovalues(class_counts(records["scores"]), value)

    return adds


def class_counts(cells: Sequence[Sequence[Mapping[str, Any]]]) -> Array:
    """Hits, true and predicted pixels of each class in each image, (N, 3, C), classes in any order.

    Args:
        cells: of each image, as `Segmentation.records` has them.
    """
    places: dict[str, int] = {}
    for cell in (cell for image in cells for cell in image):
        for name in (cell["target"], cell["prediction"]):
            places.setdefault(name, len(places))
    counts = np.zeros((len(cells), 3, len(places)))
    for row, image in zip(counts, cells, strict=True):
        for cell in image:
            true, predicted = places[cell["target"]], places[cell["prediction"]]
            row[1, true] += cell["pixels"]
            row[2, predicted] += cell["pixels"]
            if true == predicted:
                row[0, true] += cell["pixels"]
    return counts
