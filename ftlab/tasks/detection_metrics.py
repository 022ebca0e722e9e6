"""Mean average precision as COCO defines it, for all classes and for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain, zip_longest
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed
from torchmetrics.detection import MeanAveragePrecision

from ftlab.tasks.metric import Metric

WHOLE = ("map", "map_50", "map_75", "mar_100")
"""Metrics over all classes."""


def detection_metrics(classes: Callable[[], int]) -> list[Metric]:
    """Metrics of boxes of so many classes."""

    def make() -> BoxPrecision:
        return BoxPrecision(classes())

    names = (*WHOLE, "map/<class>", "map_50/<class>")
    return [Metric(name, make, True, "share") for name in names]


class BoxPrecision(MeanAveragePrecision):
    """torchmetrics' mean average precision, with figures a class in the order of the task.

    `compute` gives `map` (intersection over union 0.5 to 0.95), `map_50`, `map_75`, `mar_100`,
    and `map/<class>` and `map_50/<class>` (C,); not a number where there are no objects,
    of any class or of one.

    Ignored objects are what COCO calls crowds: a detection that lies by half (or the threshold's
    part) of its own area inside one is not counted, and any number of detections may.

    Args:
        classes: how many there are.
    """

    def __init__(self, classes: int) -> None:
        # torchmetrics' own thresholds are float32: a recall of exactly 0.3 would miss its place
        super().__init__(box_format="xyxy", backend="faster_coco_eval", extended_summary=True,
                         iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
                         rec_thresholds=np.linspace(0, 1, 101).tolist())
        self.classes = classes
        self.warn_on_many_detections = False  # `Keep.most` decides

    def update(self, preds: Sequence[Mapping[str, Tensor]],
               target: Sequence[Mapping[str, Tensor]]) -> None:
        """Detections and targets as `ftlab.backbones.heads.detection_model` describes them."""
        truth = [{"boxes": image["boxes"], "labels": image["labels"],
                  "iscrowd": image["ignored"].long()} for image in target]
        super().update([dict(image) for image in preds], truth)

    def compute(self) -> dict[str, Tensor]:
        """The metrics by name."""
        result: dict[str, Any] = super().compute()
        device = result["map"].device
        # COCO writes -1 where there is nothing to find; a mean of those would pass for a score
        whole = {name: torch.as_tensor(result[name], device=device) for name in WHOLE}
        numbers = {name: value.where(value >= 0, torch.nan) for name, value in whole.items()}
        precision = result["precision"][:, :, :, 0, -1]  # thresholds, recalls, classes
        for name, part in (("map", precision), ("map_50", precision[:1])):
            numbers[f"{name}/<class>"] = self._by_class(result["classes"].reshape(-1), part)
        return numbers

    def _sync_dist(self, dist_sync_fn: Any = None, process_group: Any = None) -> None:
        """All ranks' images, in one exchange.

        torchmetrics' own makes one an image and state: ranks with unequal numbers of images would
        wait for each other for ever.
        """
        states = {name: [tensor.cpu() for tensor in getattr(self, name)] for name in self._reductions}
        ranks: list[Any] = [None] * distributed.get_world_size(process_group)
        distributed.all_gather_object(ranks, states, group=process_group)
        for name in self._reductions:
            # image by image, as one process would have seen them: COCO breaks ties by that order
            images = chain.from_iterable(zip_longest(*(rank[name] for rank in ranks)))
            setattr(self, name, [image.to(self.device) for image in images if image is not None])

    def _by_class(self, present: Tensor, precision: Tensor) -> Tensor:
        values = torch.full((self.classes,), torch.nan)
        for column, label in enumerate(present.tolist()):
            curve = precision[:, :, column]
            if (curve > -1).any():  # -1: the class has no objects
                values[label] = curve[curve > -1].mean()
        return values
