"""Facts about the metrics of a study's cells, as its store holds them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ftlab.tracking.metric_facts import MetricFacts, Record, from_tag, lookup, to_tag
from ftlab.tracking.records import CellRecord

if TYPE_CHECKING:
    from ftlab.tasks.base import Task

_KEY = "metrics"


def recorded(records: Iterable[CellRecord]) -> dict[str, Record]:
    """Facts about metrics by data set; empty ones for cells that an earlier version ran."""
    by_dataset: dict[str, dict[str, MetricFacts]] = {}
    for record in {(record.key.dataset, id(record.facts)): record for record in records}.values():
        by_dataset.setdefault(record.key.dataset, {}).update(record.facts)
    return dict(by_dataset)


def merged(records: Mapping[str, Record]) -> Record:
    """Facts about the metrics of all data sets."""
    return {name: facts for record in records.values() for name, facts in record.items()}


def stated(records: Mapping[str, Record]) -> dict[str, Any]:
    """Facts about the metrics of all data sets as plain data, under a key; empty without any."""
    text = to_tag(merged(records))
    return {_KEY: json.loads(text)} if text else {}


def read_stated(data: Mapping[str, Any]) -> Record:
    """Facts from plain data that `stated` added; empty where an earlier version wrote it."""
    return from_tag(json.dumps(data.get(_KEY, {})))


def upwards(metric: str, dataset: str, records: Mapping[str, Record],
            tasks: Mapping[str, Task]) -> bool:
    """Look up whether more of a metric is better, in a data set's record.

    Where the record does not name it, as no record of an earlier version does, the data set's task
    is built and asked.

    Raises:
        InputError: there is no such metric.
    """
    facts = lookup(metric, records.get(dataset, {}))
    if facts is not None:
        return facts.higher_is_better
    return tasks[dataset].higher_is_better(re.sub("^(test|val)/", "", metric))
