"""The base class of tasks: output type, loss, metrics and prediction records."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics import MetricCollection

from ftlab.backbones.base import OutputType
from ftlab.backbones.export_code import PlainOutputs
from ftlab.backbones.task_model import Batch, Outputs, TaskModel
from ftlab.errors import Incompatible, InputError
from ftlab.renamed import RefusesEarlierNames
from ftlab.tasks.class_names import flattened
from ftlab.tasks.metric import LOSS, Metric, Records, find, fresh
from ftlab.tasks.over_sequence import derived, derived_metric
from ftlab.tasks.same_prediction import alike
from ftlab.tasks.spelling import renamed
from ftlab.tracking.metric_facts import MetricFacts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Predictions = Any
"""Input of metrics and records: the outputs, or texts where the model generates."""


class Task(RefusesEarlierNames, ABC):
    """Task: learns the classes or the scale of the training labels, then encodes labels.

    Made without data; `fit` gives it the training labels, after which all else may be used.
    """

    output_type: ClassVar[OutputType] = "vector"
    """What a model gives for an example; the backbone builds by it."""
    auto_classes: ClassVar[tuple[str, ...]] = ()
    """transformers Auto classes whose own head fits, the preferred first."""

    one_class: ClassVar[bool] = False
    """True where an example has one class of several, which its records name."""
    kept_of_targets: str = ""  # numbers of the training labels that stay in it, a sentence's half
    groups: Sequence[str] = ()
    """Names of the groups of the data set's examples, which have scores of their own."""
    problem_type: ClassVar[str | None] = None
    """transformers' word in a network's config for a task of the output type `vector`."""

    @property
    def convex(self) -> bool:
        """True where `loss` is convex and differentiable in the outputs, one example's alone."""
        return False

    @property
    def of_examples(self) -> bool:
        """True where `losses` gives the loss of each example."""
        return type(self).losses is not Task.losses

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
        """Name of each output; empty where outputs have no names."""
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
        """Key by which splits are stratified; None where there is nothing to stratify by."""
        return None

    @abstractmethod
    def loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Mean loss of a batch, a scalar."""

    def losses(self, outputs: Outputs, batch: Batch) -> Tensor | None:
        """Loss of each example (B,), of which `loss` is the mean by `weights`; None where it is not.

        An example of several labels (tokens) has the mean over its own.
        """
        return None

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
        """Number of units that `loss` is the mean of: examples, tokens, or their weights' sum."""
        return len(batch["index"])

    def weights(self, batch: Batch) -> Tensor:
        """Part of each example in `weight` (B,), which is their sum."""
        return torch.ones(len(batch["index"]), device=batch["index"].device)

    def predict(self, model: TaskModel, batch: Batch,
                outputs: Outputs | None = None) -> Predictions:
        """Predict what a user of the model gets for a batch; metrics and records read it.

        Args:
            model: in eval mode.
            batch: targets may be there, and are not read.
            outputs: of `model(batch)`, where the caller has them already.
        """
        return model(batch) if outputs is None else outputs

    def answer(self, prediction: Any, scores: Any, where: str) -> Any:
        """Check what another system says of an example, as its records would have it.

        Args:
            prediction: as in `records`, or as a label is written.
            scores: likewise; None where it gives none.
            where: the place, for messages.

        Raises:
            InputError: it cannot be a prediction; or the task takes none of other systems.
        """
        raise Incompatible(f"{type(self).__name__} takes no predictions of other systems",
                           "leave them out for this data set")

    def answered(self, answers: Sequence[Any], target: Any) -> tuple[Predictions, Any]:
        """Make the predictions and the target of a batch, for metrics and records.

        Args:
            answers: of the examples of a batch, from `answer`.
            target: of the batch.
        """
        return torch.stack(list(answers)), target

    @abstractmethod
    def metrics(self) -> list[Metric]:
        """Metrics of the task besides `loss`; may be asked before `fit`."""

    @property
    def metric_classes(self) -> Sequence[str]:
        """Classes that metrics have a value of each; empty before `fit`, or where there are none."""
        return ()

    def collection(self) -> MetricCollection:
        """Build the objects that measure `metrics`, updated with `update(predictions, target)`."""
        return MetricCollection(fresh(self.metrics()))

    def facts(self) -> dict[str, MetricFacts]:
        """Facts about the metrics by name, `loss` among them, for the record of a cell."""
        metrics = list(self.metrics())
        if not all(isinstance(metric, Metric) for metric in metrics):
            raise InputError(f"task {type(self).__name__}: metrics() is not a list of Metric",
                             "write each as ftlab.tasks.metric.Metric (docs/tasks.md)")
        more = derived(metrics) if self.groups else []
        return {metric.name: metric.facts for metric in (LOSS, *metrics, *more)}

    def higher_is_better(self, metric: str) -> bool:
        """Look up whether more of a metric (name without split prefix, or `loss`) is better.

        Raises:
            InputError: there is no such metric.
        """
        metrics = self.metrics()
        if (entry := derived_metric(metric, metrics)) is not None:
            return entry.higher_is_better
        every = (LOSS, *metrics)
        more = [entry.name for entry in derived(metrics)]
        return find(every, metric, self.metric_classes, type(self).__name__, more).higher_is_better

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
        """Computed metrics, `loss` among them, as plain numbers, see `class_names.flattened`."""
        return flattened(computed, self.metric_classes)

    @abstractmethod
    def records(self, predictions: Predictions, target: Any) -> dict[str, list[Any]]:
        """Columns `target`, `prediction`, `scores` of the prediction records of a batch."""

    def contributions(self, metric: str, records: Records) -> NDArray[np.float64] | None:
        """Look up what each example adds to a metric, (N,); see `Metric.per_example`.

        Args:
            metric: name without split prefix.
            records: of a whole split; no `fit` is needed.

        Returns:
            None for a metric that says nothing of it.
        """
        entry = next((entry for entry in self.metrics() if entry.name == metric), None)
        return None if entry is None or entry.per_example is None else entry.per_example(records)

    def right(self, records: Records) -> NDArray[np.float64] | None:
        """Tell right predictions (1) from wrong ones (0), (N,), by the first metric that does.

        None where none of the metrics calls a prediction right or wrong.
        """
        names = [metric.name for metric in self.metrics() if metric.right_or_wrong]
        columns = (self.contributions(name, records) for name in names)
        return next((values for values in columns if values is not None), None)

    def figures(self, records: Records) -> dict[str, Figure]:
        """Figures of a test split's prediction records, by name."""
        return {}

    def summary(self) -> dict[str, Any]:
        """Summary of the labels for a reader of the run (classes, counts)."""
        return {}

    def table(self, columns: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        """Prediction records with their `id`, a row an example, as people want to see them."""
        return dict(columns)

    def export_code(self) -> PlainOutputs | None:
        """The meaning of a model's outputs, as lines without ftlab; None where no lines exist."""
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
        """Compare two prediction records of an example (without target).

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
