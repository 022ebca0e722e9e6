"""Metrics that a study names, held to its data before anything runs."""

from __future__ import annotations

from collections.abc import Collection

from ftlab.data.base import DataModule
from ftlab.data.examples import NAMED, SplitName
from ftlab.data.groups import faulty_groups
from ftlab.errors import InputError
from ftlab.studies.yaml_file import Place
from ftlab.tasks.over_groups import over_group
from ftlab.tasks.over_sequence import over_sequence
from ftlab.tracking.metric_facts import SPLIT


def check_measurable(metric: str, data: DataModule, dataset: str, place: Place,
                     quantized: Collection[str] = ()) -> None:
    """Refuse a metric that a data set's task does not have, or that its split gives no value.

    Args:
        metric: with its split's prefix, as `val/`; the test split's where it has none.
        data: loaded.
        dataset: its name in the study.
        place: where the metric is named.
        quantized: names of what finished models are measured as on the test split.

    Raises:
        InputError: it cannot be measured.
    """
    prefix, _, name = metric.partition("/") if SPLIT.match(metric) else ("test", "", metric)
    split: SplitName = "validation" if prefix == "val" else prefix
    if split.removeprefix(NAMED) in quantized:
        split = "test"
    if split not in data.measured:
        raise InputError(f"{place}: {metric}: data set {dataset} has no test set of that name",
                         f"add it to tests: of the data set, or take one of "
                         f"{', '.join(data.measured)}")
    if over_group(name, data.task.metrics()) is not None:
        if fault := faulty_groups(name, data.task, data.splits, split):
            raise InputError(f"{place}: {metric} is over groups, and data set {dataset} {fault.what}",
                             fault.mend)
        return
    if name in {entry.name for entry in over_sequence(data.task.metrics())}:
        if prefix != "test":
            raise InputError(f"{place}: {metric} follows from test scores at the end of a sequence of tasks",
                             f"name test/{name} in report, and another metric here")
        if not data.task.groups:
            raise InputError(f"{place}: {metric} is of a sequence of tasks, and data set {dataset} has none",
                             "name them, columns: {domain: COLUMN, group: COLUMN}")
        return
    try:
        data.task.higher_is_better(name)
    except InputError as error:
        raise InputError(f"{place}: {error.what} (data set {dataset})", error.mend) from error
    targets = data.splits[split].targets
    if reason := data.task.unmeasurable(name, targets):
        raise InputError(
            f"{place}: {metric} cannot be measured on data set {dataset}: of its {split} split "
            f"({len(targets)} examples), {reason}",
            f"name another metric, {prefix}/loss for instance, or give a {split} split that has "
            f"what it needs ({split}: SOURCE, or another split:)")
