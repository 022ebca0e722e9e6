"""Metrics of one number an example, updated with predictions (B,) and targets (B,).

They add up over uneven batches and over ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric, MetricCollection
from torchmetrics.utilities.data import dim_zero_cat

from ftlab.tasks.jackknife import Array, pseudovalues


def pearson(prediction: Tensor, target: Tensor) -> Tensor:
    """Pearson's correlation of (N,) with (N,); nan where either is constant."""
    x, y = prediction.double(), target.double()
    if (x == x[0]).all() or (y == y[0]).all():  # by rounding the mean may differ from them all
        return x.new_tensor(torch.nan)
    x, y = x - x.mean(), y - y.mean()
    return (x / x.norm()) @ (y / y.norm())


def spearman(prediction: Tensor, target: Tensor) -> Tensor:
    """Spearman's rank correlation of (N,) with (N,); nan where either is constant."""
    return pearson(ranks(prediction), ranks(target))


def ranks(values: Tensor) -> Tensor:
    """Ranks from 1 (N,); equal values share the mean of theirs."""
    _, place, counts = values.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts - 1) / 2)[place]


def r_squared(prediction: Tensor, target: Tensor) -> Tensor:
    """Coefficient of determination; nan where the target is constant."""
    x, y = prediction.double(), target.double()
    if (y == y[0]).all():
        return y.new_tensor(torch.nan)
    return 1 - (x - y).square().sum() / (y - y.mean()).square().sum()


class OfAll(Metric):
    """A function of all predictions and targets together, computed in float64.

    torchmetrics' own correlations warn of constant predictions, which a run begins with, and
    Pearson's is computed there in float32 batch by batch.

    Args:
        function: predictions (N,), targets (N,) -> scalar.
    """

    full_state_update = False
    higher_is_better = True
    prediction: list[Tensor]
    target: list[Tensor]

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.function = function
        self.add_state("prediction", default=[], dist_reduce_fx="cat")
        self.add_state("target", default=[], dist_reduce_fx="cat")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Keep predictions (B,) and targets (B,)."""
        self.prediction.append(prediction)
        self.target.append(target)

    def compute(self) -> Tensor:
        """The function's value, a float32 scalar."""
        return self.function(dim_zero_cat(self.prediction), dim_zero_cat(self.target)).float()


def regression_metrics() -> MetricCollection:
    """Fresh metrics."""
    return MetricCollection({
        "mse": MeanSquaredError(),
        "rmse": MeanSquaredError(squared=False),
        "mae": MeanAbsoluteError(),
        "pearson": OfAll(pearson),
        "spearman": OfAll(spearman),
        "r2": OfAll(r_squared),
    })


def _correlation(sums: Array) -> Array:
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    covariance, of_x, of_y = xy - x * y / n, xx - x * x / n, yy - y * y / n
    found: Array = covariance / np.sqrt(of_x * of_y)
    return found


def contributions(metric: str, target: Array, prediction: Array) -> Array | None:
    """What each example adds to a metric, (N,), from targets and predictions (N,).

    None for Spearman's correlation, which is no function of sums, and for an unknown metric.
    """
    error, one = prediction - target, np.ones_like(target)
    # away from the origin, sums of squares would cancel
    x, y = prediction - prediction.mean(), target - target.mean()
    match metric:
        case "mse":
            return error**2
        case "mae":
            return np.abs(error)
        case "rmse":
            counts = np.stack([error**2, one], axis=-1)
            return pseudovalues(counts, lambda sums: np.sqrt(sums[..., 0] / sums[..., 1]))
        case "pearson" if x.any() and y.any():
            return pseudovalues(np.stack([one, x, y, x * x, y * y, x * y], -1), _correlation)
        case "r2" if y.any():
            counts = np.stack([error**2, one, y, y * y], axis=-1)
            return pseudovalues(counts, lambda sums: 1 - sums[..., 0] / (
                sums[..., 3] - sums[..., 2] ** 2 / sums[..., 1]))
    return None
