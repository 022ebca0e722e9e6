"""Metrics of one number an example, updated with predictions (B,) and targets (B,).

They add up over uneven batches and over ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torchmetrics
from torch import Tensor
from torchmetrics import MeanAbsoluteError, MeanSquaredError
from torchmetrics.utilities.data import dim_zero_cat

from ftlab.tasks.jackknife import Array, pseudovalues
from ftlab.tasks.metric import Metric, Records


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


class OfAll(torchmetrics.Metric):
    """A function of all predictions and targets together, computed in float64.

    torchmetrics' own correlations warn of constant predictions, which a run begins with, and
    Pearson's is computed there in float32 batch by batch.

    Args:
        function: predictions (N,), targets (N,) -> scalar.
    """

    full_state_update = False
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


def regression_metrics() -> list[Metric]:
    """Metrics of numbers; Spearman's correlation is not a function of sums over examples."""
    return [
        Metric("mae", MeanAbsoluteError, False, "non-negative",
               lambda records: np.abs(_errors(records))),
        Metric("mse", MeanSquaredError, False, "non-negative",
               lambda records: _errors(records) ** 2),
        Metric("pearson", lambda: OfAll(pearson), True, "correlation", _pearson),
        Metric("r2", lambda: OfAll(r_squared), True, "at most one", _r2),
        Metric("rmse", lambda: MeanSquaredError(squared=False), False, "non-negative", _rmse),
        Metric("spearman", lambda: OfAll(spearman), True, "correlation"),
    ]


def _read(records: Records) -> tuple[Array, Array]:
    """Targets and predictions (N,)."""
    target, prediction = (np.array(records[name], dtype=np.float64)
                          for name in ("target", "prediction"))
    return target, prediction


def _errors(records: Records) -> Array:
    target, prediction = _read(records)
    return prediction - target


def _rmse(records: Records) -> Array:
    squares = _errors(records) ** 2
    counts = np.stack([squares, np.ones_like(squares)], axis=-1)
    return pseudovalues(counts, lambda sums: np.sqrt(sums[..., 0] / sums[..., 1]))


def _pearson(records: Records) -> Array | None:
    # away from the origin, sums of squares would cancel
    y, x = (values - values.mean() for values in _read(records))
    if not (x.any() and y.any()):
        return None
    counts = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=-1)
    return pseudovalues(counts, _correlation)


def _r2(records: Records) -> Array | None:
    target, error = _read(records)[0], _errors(records)
    y = target - target.mean()
    if not y.any():
        return None
    counts = np.stack([error**2, np.ones_like(y), y, y * y], axis=-1)
    return pseudovalues(counts, lambda sums: 1 - sums[..., 0] / (
        sums[..., 3] - sums[..., 2] ** 2 / sums[..., 1]))


def _correlation(sums: Array) -> Array:
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    covariance, of_x, of_y = xy - x * y / n, xx - x * x / n, yy - y * y / n
    value: Array = covariance / np.sqrt(of_x * of_y)
    return value
