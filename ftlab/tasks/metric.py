"""Metric of a task, with every fact about it in one entry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ftlab.errors import InputError
from ftlab.tasks.class_names import metric_keys
from ftlab.tracking.metric_facts import PER_CLASS, MetricFacts, Unit
from ftlab.tracking.mlflow_values import name_of
from ftlab.wording import closest

if TYPE_CHECKING:
    import torchmetrics

Records = Mapping[str, Sequence[Any]]
"""Prediction records of a split by column: `target`, `prediction`, `scores`."""
PerExample = Callable[[Records], NDArray[np.float64] | None]


@dataclass(frozen=True)
class Metric:
    """One metric of a task.

    Attributes:
        name: without split prefix; `f1/<class>` for a value per class, (C,).
        make: builds the object that measures it, updated with predictions and targets. Metrics
            with the same `make` are measured by one object, whose `compute` gives a value for each
            of their names. None for a metric that the task's `scalars` compute from the loss.
        higher_is_better: its direction.
        unit: kind of its numbers; percent in tables, and the range that intervals keep to.
        per_example: what each example adds to it, (N,), from a split's prediction records; None
            where they do not hold it, or where the metric is not a function of sums over examples.
            See `jackknife.pseudovalues`.
        right_or_wrong: an example adds 1 where its prediction is right, else 0.
    """

    name: str
    make: Callable[[], torchmetrics.Metric] | None
    higher_is_better: bool
    unit: Unit = "free"
    per_example: PerExample | None = None
    right_or_wrong: bool = False

    @property
    def facts(self) -> MetricFacts:
        """Facts that are stored with each cell."""
        return MetricFacts(self.higher_is_better, self.unit)


LOSS = Metric("loss", None, higher_is_better=False, unit="non-negative")
"""Loss of a split, which every task has."""


def fresh(metrics: Sequence[Metric]
          ) -> dict[str, torchmetrics.Metric | torchmetrics.MetricCollection]:
    """New objects that measure metrics, each under the name of the first that it measures."""
    first = {metric.make: metric.name for metric in reversed(metrics)}
    return {metric.name: metric.make() for metric in metrics
            if metric.make is not None and first[metric.make] == metric.name}


def find(metrics: Sequence[Metric], name: str, classes: Sequence[str], owner: str,
         more: Sequence[str] = ()) -> Metric:
    """Look up a metric by name, `f1/<class>` by the name of any class.

    Args:
        metrics: of a task.
        name: without split prefix.
        classes: their names; empty before `Task.fit`, when any name is taken for a class.
        owner: name of the task's class, for the error.
        more: names besides that may have been meant.

    Raises:
        InputError: there is no such metric.
    """
    by_name = {metric.name: metric for metric in metrics}
    keys = metric_keys(classes)
    family, _, key = name.partition("/")
    per_class = by_name.get(f"{family}{PER_CLASS}")
    if per_class is not None and (key in keys if keys else key):
        return per_class
    if name in by_name and not name.endswith(PER_CLASS):
        return by_name[name]
    families = [entry.removesuffix(PER_CLASS) for entry in by_name if entry.endswith(PER_CLASS)]
    single = [entry for entry in by_name if not entry.endswith(PER_CLASS)]
    close = [f"{family}/{key_of}" for key_of, label in zip(keys, classes, strict=True)
             if family in families and name_of(label) == key]  # which stands under another key
    per_class_names = [f"{prefix}/{key_of}" for prefix in families for key_of in keys]
    close += closest(name, [*single, *per_class_names, *more])
    hint = f"did you mean {close[0]!r}? " if close else ""
    choices = [*single, *(f"{prefix}{PER_CLASS}" for prefix in families)]
    raise InputError(f"unknown metric {name!r}", f"{hint}{owner} has: {', '.join(choices)}")
