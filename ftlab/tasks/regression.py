"""One number for each example."""

from __future__ import annotations

import math
import numbers
import statistics
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import huber_loss, l1_loss, mse_loss

from ftlab.backbones.export_code import CodeLines, PlainOutputs
from ftlab.backbones.task_model import Batch, TaskModel
from ftlab.errors import InputError
from ftlab.tasks.base import Predictions, Task
from ftlab.tasks.losses.base import at_least_float32
from ftlab.tasks.metric import Metric, Records
from ftlab.tasks.regression_metrics import regression_metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FINEST = 100
"""Steps of float32 that the targets' standard deviation must have."""
_LARGEST = 1e18
"""Largest size of targets, and 1 / _LARGEST the least standard deviation: float32 holds their squares."""

_LOSSES: dict[str, Callable[..., Tensor]] = {
    "mse": mse_loss, "mae": l1_loss, "huber": huber_loss}


_TELL = """
def tell(outputs):  # a number for each
    return (outputs.float().squeeze(-1) * {std} + {mean}).tolist()
"""


class Regression(Task):
    """Predict a number.

    The network learns the target in standard deviations from train's mean; predictions and
    metrics are in the target's own units, the loss is not. Metrics: mean squared, root mean
    squared and mean absolute error, Pearson's and Spearman's correlation, and R².

    Args:
        loss: mse, mae, or huber (Huber 1964; quadratic up to one standard deviation).
    """

    problem_type = "regression"
    kept_of_targets = "this task scales by the mean and deviation of the training targets"
    auto_classes: ClassVar[tuple[str, ...]] = (
        "AutoModelForSequenceClassification",
        "AutoModelForImageClassification",
        "AutoModelForAudioClassification",
    )

    def __init__(self, loss: Literal["mse", "mae", "huber"] = "mse") -> None:
        if loss not in _LOSSES:
            raise ValueError(f"loss must be one of {', '.join(_LOSSES)}, got {loss!r}")
        self._loss = _LOSSES[loss]
        self._mean: float | None = None
        self._std = 1.0

    @property
    def convex(self) -> bool:
        return self._loss is not l1_loss  # which has a corner

    @property
    def default_metric(self) -> str:
        return "rmse"

    def fit(self, labels: Sequence[Any]) -> None:
        """Learn the targets' mean and standard deviation.

        Raises:
            InputError: all targets are equal, or closer together than float32 separates.
        """
        # `encode` refuses what is not a number, with its place
        numbers = [value for label in labels if math.isfinite(value := _number(label))]
        if (len(set(numbers)) == 1 and len(numbers) == len(labels)) or not labels:
            values = f"all of them {numbers[0]:g}" if numbers else "none"
            raise InputError(f"regression needs targets that differ in train, found {values}",
                             "name another label column, or train on more examples")
        self._mean = statistics.fmean(numbers) if numbers else 0.0
        self._std = statistics.pstdev(numbers) if numbers else 1.0
        largest = max(map(abs, numbers), default=0.0)
        if len(numbers) < len(labels):
            return
        if largest > _LARGEST or self._std < 1 / _LARGEST:
            raise InputError(f"regression's targets go up to {largest:.3g}, with a standard "
                             f"deviation of {self._std:.3g}: float32 does not hold their squares",
                             "write them in another unit, so that they lie near 1")
        if self._std < _FINEST * torch.finfo(torch.float32).eps * largest:
            raise InputError(
                f"regression's targets lie too close together for float32: up to {largest:.10g}, "
                f"and a standard deviation of {self._std:.3g}",
                f"subtract a constant from all of them, {self._mean:.10g} for instance")

    @property
    def mean(self) -> float:
        """Mean of the training targets."""
        if self._mean is None:
            raise RuntimeError("Regression needs `fit` with the training labels first")
        return self._mean

    @property
    def std(self) -> float:
        """Standard deviation of the training targets, the unit of the network's outputs."""
        return self._std

    @property
    def outputs(self) -> int:
        return 1

    def encode(self, label: Any, where: str) -> float:
        value = _number(label)
        if not math.isfinite(value):
            raise InputError(f"{where}: {label!r} is no number",
                             "write targets as numbers with a decimal point, or use the task "
                             "Classification")
        return value

    def loss(self, outputs: Tensor, batch: Mapping[str, Any]) -> Tensor:
        return self._loss(*self._pair(outputs, batch))

    def losses(self, outputs: Tensor, batch: Mapping[str, Any]) -> Tensor:
        return self._loss(*self._pair(outputs, batch), reduction="none")

    def _pair(self, outputs: Tensor, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Predictions and targets (B,), in standard deviations from train's mean."""
        prediction = at_least_float32(outputs).squeeze(-1)
        return prediction, (batch["target"].to(prediction.dtype) - self.mean) / self._std

    def slope(self, outputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor] | None:
        if self._loss is not mse_loss:
            return None
        prediction = at_least_float32(outputs).squeeze(-1)
        gap = prediction - (target.to(prediction.dtype) - self.mean) / self._std
        return gap.square().mean(dim=-1), 2 / gap.shape[-1] * gap.unsqueeze(-1)

    def predict(self, model: TaskModel, batch: Batch, outputs: Tensor | None = None) -> Predictions:
        """Predictions in the target's units (B,)."""
        outputs = model(batch) if outputs is None else outputs
        return at_least_float32(outputs).squeeze(-1) * self._std + self.mean

    def answer(self, prediction: Any, scores: Any, where: str) -> Tensor:
        return torch.tensor(self.encode(prediction, where))

    def metrics(self) -> list[Metric]:
        return regression_metrics()

    def unmeasurable(self, metric: str, targets: Sequence[float]) -> str:
        if metric in ("pearson", "spearman", "r2") and len(set(targets)) < 2:
            count = len(targets)
            return (f"all {count} targets are {targets[0]:g}" if count > 1
                    else "there is one example, and it takes two different targets")
        return ""

    def records(self, predictions: Tensor, target: Tensor) -> dict[str, list[Any]]:
        """Target and prediction; the one score is the prediction."""
        numbers = predictions.detach().cpu().tolist()
        return {"target": target.tolist(), "prediction": numbers,
                "scores": [[number] for number in numbers]}

    def figures(self, records: Records) -> dict[str, Figure]:
        """Predictions over targets."""
        # matplotlib takes a quarter of a second to import; most processes draw nothing
        from ftlab.tasks.scatter_plot import scatter_figure

        return {"scatter": scatter_figure(records["target"], records["prediction"])}

    def summary(self) -> dict[str, Any]:
        return {"train_mean": self.mean, "train_standard_deviation": self._std}

    def export_code(self) -> PlainOutputs:
        return PlainOutputs(CodeLines(_TELL.format(std=self._std, mean=self.mean)))

    @property
    def exported_names(self) -> Sequence[str]:
        """Where the network's own outputs are standard deviations, how they are read."""
        return () if (self.mean, self._std) == (0.0, 1.0) else (
            f"(number - {self.mean:.6g}) / {self._std:.6g}",)

    def fold(self, layer: nn.Linear | None) -> bool:
        """Let the layer give the numbers themselves."""
        if layer is None:
            return False
        with torch.no_grad():
            layer.weight.mul_(self._std)
            layer.bias.mul_(self._std).add_(self.mean)
        self._mean, self._std = 0.0, 1.0
        return True

    @staticmethod
    def stack(targets: Sequence[Any]) -> Tensor:
        """Targets (B,) in float32."""
        return torch.tensor(targets, dtype=torch.float32)


def _number(label: Any) -> float:
    """Its value; not a number where it has none."""
    if isinstance(label, bool) or not isinstance(label, str | numbers.Real | Decimal):
        return math.nan
    if isinstance(label, str) and "_" in label:  # Python's own way of writing digits
        return math.nan
    try:
        return float(label)
    except (ValueError, OverflowError):
        return math.nan
