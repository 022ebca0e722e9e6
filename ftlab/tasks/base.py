"""The base class of tasks: output type, loss, metrics and prediction records."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from ftlab.backbones.base import OutputType
from ftlab.backbones.export_code import PlainOutputs
from ftlab.backbones.task_model import Batch, Outputs, TaskModel
from ftlab.errors import InputError
from ftlab.tasks.class_names import metric_keys
from ftlab.tasks.same_prediction import alike
from ftlab.tasks.spelling import renamed
from ftlab.tracking.mlflow_values import name_of
from ftlab.wording import closest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Predictions = Any
"""What metrics and records read: the outputs, or texts where the model generates."""


class Task(ABC):
    """What is predicted. It learns from the training labels what there is, then encodes labels.

    A task is made without data; `fit` tells it the training labels, after which `outputs`,
    `encode`, `loss`, `metrics` and `records` may be used.
    """

    output_type: ClassVar[OutputType] = "vector"
    """What a model gives for an example; the backbone builds by it."""
    auto_classes: ClassVar[tuple[str, ...]] = ()
    """transformers Auto classes whose own head fits, the preferred first."""

    one_class: ClassVar[bool] = False
    """Whether an example has one class of several, which its records name."""
    problem_type: ClassVar[str | None] = None
    """transformers' word in a network's config for a task of the output type `vector`."""

    @property
    def specimens(self) -> Sequence[Any]:
        """A few raw labels that `fit` takes, so that `metrics` can be asked before there are data."""
        return ()

    @property
    def default_metric(self) -> str:
        """The metric that chooses epochs where a study names none; it needs no `fit`."""
        return "loss"

    @abstractmethod
    def fit(self, labels: Sequence[Any]) -> None:
        """Learn from the raw training labels (after `Subset`) what there is to predict."""

    @property
    def outputs(self) -> int:
        """Width of the new head; 0 where the pre-trained output layer stays."""
        return 0

    @property
    def names(self) -> Sequence[str]:
        """What each output stands for; empty where outputs have no names."""
        return ()

    @abstractmethod
    def encode(self, label: Any, where: str) -> Any:
        """A raw label as a target that `stack` takes.

        Raises:
            InputError: a label that cannot be predicted; `where` says the place.
        """

    def named(self, label: Any, where: str) -> list[str]:
        """The classes that a raw label names, as it spells them; none where labels name none.

        It needs no `fit`.

        Raises:
            InputError: a label that names no class; `where` says the place.
        """
        return []

    def renamed(self, label: Any, classes: Mapping[str, str], where: str) -> Any:
        """A raw label with the names that a data module's `classes` give to its classes.

        Raises:
            InputError: a class that `classes` do not have.
        """
        return renamed(label, classes, where)

    def stratum(self, label: Any) -> Hashable | None:
        """What splits are stratified by; None where there is nothing to stratify by."""
        return None

    @abstractmethod
    def loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Mean loss of a batch, a scalar."""

    def slope(self, outputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor] | None:
        """Losses of several heads on one batch, and their gradients by the outputs.

        Args:
            outputs: (..., B, O), a batch a head.
            target: of the batch, each part of it broadcast against (..., B).

        Returns:
            (...) and (..., B, O); None where the loss states no closed form.
        """
        return None

    def weight(self, batch: Batch) -> float:
        """How many units `loss` is the mean of: examples, or tokens, or their weights' sum."""
        return len(batch["index"])

    def predict(self, model: TaskModel, batch: Batch,
                outputs: Outputs | None = None) -> Predictions:
        """What a user of the model gets for a batch; metrics and records read it.

        Args:
            model: in eval mode.
            batch: targets may be there, and are not read.
            outputs: of `model(batch)`, where the caller has them already.
        """
        return model(batch) if outputs is None else outputs

    @abstractmethod
    def metrics(self) -> MetricCollection:
        """Fresh metrics, updated with `update(predictions, target)`; keys without split prefix.

        Vector-valued metrics (per class) are flattened by `scalars`, see `naming.flattened`.
        """

    def higher_is_better(self, metric: str) -> bool:
        """Whether more of a metric (name without split prefix, or `loss`) is better.

        The classes in `metrics` say it; a member states it where that would cost building them.

        Raises:
            InputError: there is no such metric.
        """
        return direction(metric, {}, self)

    def unmeasurable(self, metric: str, targets: Sequence[Any]) -> str:
        """The reason why a split leaves a metric without a value that predictions could change.

        Args:
            metric: name without split prefix.
            targets: encoded labels of the whole split.

        Returns:
            Empty where it can be measured.
        """
        return ""

    def scalars(self, computed: Mapping[str, Tensor]) -> dict[str, float]:
        """Computed metrics, `loss` among them, as plain numbers."""
        return {name: float(value) for name, value in computed.items()}

    @abstractmethod
    def records(self, predictions: Predictions, target: Any) -> dict[str, list[Any]]:
        """Columns `target`, `prediction`, `scores` of the prediction records of a batch."""

    def contributions(self, metric: str,
                      records: Mapping[str, Sequence[Any]]) -> NDArray[np.float64] | None:
        """What each example adds to a metric, (N,): see `jackknife.pseudovalues`.

        It needs no `fit`: the records say all.

        Args:
            metric: name without split prefix.
            records: of a whole split.

        Returns:
            None where the records do not tell, or where a metric is no function of sums.
        """
        return None

    def figures(self, records: Mapping[str, Sequence[Any]]) -> dict[str, Figure]:
        """Figures of a test split's prediction records, by name."""
        return {}

    def summary(self) -> dict[str, Any]:
        """What a reader of the run wants to know of the labels (classes, counts)."""
        return {}

    def table(self, columns: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        """Prediction records with their `id`, a row an example, as people want to see them."""
        return dict(columns)

    def export_code(self) -> PlainOutputs | None:
        """What a model's outputs mean, as lines without ftlab; None where nothing says it."""
        return None

    @property
    def exported_names(self) -> Sequence[str]:
        """Names of the raw outputs where other programs show them."""
        return self.names

    def fold(self, layer: nn.Linear | None) -> bool:
        """Make a network's raw outputs what is predicted, where that takes a scale and an offset.

        Args:
            layer: last of the head; None where none can take them in.

        Returns:
            Whether the layer and this task have changed.
        """
        return False

    def agrees(self, given: Mapping[str, Any], expected: Mapping[str, Any],
               tolerance: float) -> bool:
        """Whether two prediction records of an example (without target) say the same.

        Args:
            given: `prediction`, and `scores` where they are compared too.
            expected: the same columns.
            tolerance: of numbers, relative above 1.
        """
        return alike(given, expected, tolerance)

    @staticmethod
    def stack(targets: Sequence[Any]) -> Any:
        """Targets of a batch as one tensor; a task with ragged targets overrides it."""
        return torch.as_tensor(targets)


def direction(metric: str, known: Mapping[str, bool], task: Task,
              families: Mapping[str, bool] | None = None, classes: Sequence[str] = ()) -> bool:
    """Look up whether more of a metric is better, for `Task.higher_is_better`.

    Args:
        metric: name without split prefix.
        known: name -> whether more is better, `loss` excepted.
        task: its `metrics` may measure more, where a class of a user's adds to them.
        families: prefixes of metrics per class, for instance `f1` of `f1/<class>`.
        classes: their names; empty before `fit`, when any is taken for known.

    Raises:
        InputError: there is no such metric, or its class states no direction.
    """
    gone = _dropped(task)
    known = {"loss": False, **{name: up for name, up in known.items() if name not in gone}}
    families = {name: up for name, up in (families or {}).items() if name not in gone}
    keys = metric_keys(classes)
    family, _, name = metric.partition("/")
    if family in families and (name in keys if keys else name):
        return families[family]
    if metric in known:
        return known[metric]
    added = {part: measured for part, measured in _measured(task).items()
             if part not in families and part not in known}
    if family in added:  # with a name behind it where it has a value per class
        upwards = added[family].higher_is_better
        if upwards is None:
            raise InputError(f"metric {family!r}: {type(added[family]).__name__} does not say "
                             "whether more of it is better",
                             "take a subclass of it with higher_is_better = True or False")
        return bool(upwards)
    every = [*known, *added, *(f"{prefix}/{key}" for prefix in families for key in keys)]
    close = [f"{family}/{key}" for key, label in zip(keys, classes, strict=True)
             if family in families and name_of(label) == name]  # which stands under another key
    close += closest(metric, every)
    hint = f"did you mean {close[0]!r}? " if close else ""
    choices = [*known, *added, *(f"{prefix}/<class>" for prefix in families)]
    raise InputError(f"unknown metric {metric!r}",
                     f"{hint}{type(task).__name__} has: {', '.join(choices)}")


def _measured(task: Task, of: type[Task] | None = None) -> dict[str, Metric]:
    """Metrics that a task's `metrics` measure, or those of a base class, by name.

    A class that computes several says its `parts`.
    """
    fitted = copy.deepcopy(task)
    if task.specimens:
        fitted.fit(task.specimens)
    return {part: metric for name, metric in (of or type(task)).metrics(fitted).items()
            for part in getattr(metric, "parts", (name,))}


def _dropped(task: Task) -> set[str]:
    """Metrics of a class of which a user's task overrides `metrics`, and measures others instead."""
    says: type[Task] = next(each for each in type(task).__mro__
                            if issubclass(each, Task) and "higher_is_better" in vars(each))
    if says is Task or type(task).metrics is says.metrics:
        return set()
    return _measured(task, says).keys() - _measured(task).keys()
