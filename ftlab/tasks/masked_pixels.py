"""Patches that were masked in images, to be reconstructed."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
import torchmetrics
from torch import Tensor

from ftlab.backbones.base import OutputType
from ftlab.backbones.task_model import Batch, Outputs, TaskModel
from ftlab.tasks.base import Task
from ftlab.tasks.jackknife import Array, pseudovalues, ratio
from ftlab.tasks.losses.base import at_least_float32
from ftlab.tasks.metric import Metric, Records


class MaskedPixels(Task):
    """Reconstruct the pixels of patches that were masked in an image, which is its own target.

    The loss is the mean absolute difference (L1) over masked pixels and channels, as the network
    reads them: in the channels' standard deviations. `l1` is the same number, `mse` the mean squared
    difference. Both compare only between models with the same normalisation, on the same masks.

    SimMIM: Xie et al. (2022), https://arxiv.org/abs/2111.09886
    """

    output_type: ClassVar[OutputType] = "masked"
    auto_classes: ClassVar[tuple[str, ...]] = ("AutoModelForMaskedImageModeling",)

    @property
    def default_metric(self) -> str:
        return "l1"

    def fit(self, labels: Sequence[Any]) -> None:
        """Nothing: what there is to predict are pixels."""

    def encode(self, label: Any, where: str) -> None:
        """Nothing: the data module draws what is predicted."""

    def stratum(self, label: Any) -> Hashable | None:
        """The label that an image happens to have, so that its splits are carved as a classifier's."""
        return label if isinstance(label, Hashable) else None

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        weights = self.weights(batch)
        return (self.losses(outputs, batch) * weights).sum() / weights.sum()

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        return _over_masked(_difference(outputs, batch).abs(), batch)

    def weight(self, batch: Batch) -> float:
        """Masked patches."""
        return float(_masked(batch).sum())

    def weights(self, batch: Batch) -> Tensor:
        return _masked(batch).sum(dim=1)

    def predict(self, model: TaskModel, batch: Batch,
                outputs: Outputs | None = None) -> dict[str, Tensor]:
        """`l1` and `mse` of each example (B,), and how many `patches` were masked in it."""
        difference = _difference(model(batch) if outputs is None else outputs, batch)
        return {"l1": _over_masked(difference.abs(), batch),
                "mse": _over_masked(difference.square(), batch), "patches": self.weights(batch)}

    def metrics(self) -> list[Metric]:
        return [Metric(name, partial(_Error, name), False, "non-negative", _per_example(place))
                for place, name in enumerate(("l1", "mse"))]

    def records(self, predictions: Mapping[str, Tensor], target: Any) -> dict[str, list[Any]]:
        """The target says which parts were masked; the prediction is `l1`, the scores have `mse` too."""
        l1, mse = predictions["l1"].tolist(), predictions["mse"].tolist()
        return {"target": list(target["masked"]), "prediction": l1,
                "scores": [list(pair) for pair in zip(l1, mse, strict=True)]}

    @staticmethod
    def stack(targets: Sequence[Any]) -> dict[str, Any]:
        """`masked`: the numbers of each image's masked parts, as texts."""
        return {"masked": list(targets)}


class _Error(torchmetrics.Metric):
    """Mean of an error over all masked patches.

    Args:
        name: of the error in predictions.
    """

    full_state_update = False
    error: Tensor
    patches: Tensor

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        for state in ("error", "patches"):
            self.add_state(state, torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, predictions: Mapping[str, Tensor], target: Any) -> None:
        """Add the errors of examples (B,), by their `patches` (B,)."""
        self.error += (predictions[self.name].double() * predictions["patches"]).sum()
        self.patches += predictions["patches"].sum()

    def compute(self) -> Tensor:
        return (self.error / self.patches).float()


def _masked(batch: Batch) -> Tensor:
    """Which patches were masked, bool (B, patches)."""
    masked: Tensor = batch["inputs"]["bool_masked_pos"]
    return masked


def _difference(outputs: Tensor, batch: Batch) -> Tensor:
    """Reconstruction less image, (B, 3, H, W)."""
    return at_least_float32(outputs) - batch["inputs"]["pixel_values"]


def _over_masked(errors: Tensor, batch: Batch) -> Tensor:
    """Mean over the masked pixels of each example, (B, 3, H, W) -> (B,)."""
    masked = _masked(batch)
    side = math.isqrt(masked.shape[1])
    patches = errors.mean(dim=1).unflatten(2, (side, -1)).unflatten(1, (side, -1))
    each = patches.mean(dim=(2, 4)).flatten(1)  # (B, side, p, side, p) -> (B, patches)
    return (each * masked).sum(dim=1) / masked.sum(dim=1)


def _per_example(place: int) -> Callable[[Records], Array]:
    """Compute what each image adds to the mean over all masked patches, of the error at a place in scores."""

    def adds(records: Records) -> Array:
        counts = np.array([[scores[place] * (parts := len(masked.split())), parts] for scores, masked
                           in zip(records["scores"], records["target"], strict=True)])
        return pseudovalues(counts, lambda sums: ratio(sums[..., 0], sums[..., 1]))

    return adds
