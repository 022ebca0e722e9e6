"""What the store holds of a study, read as tables and figures need it."""

from __future__ import annotations

import io
import logging
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ftlab.reports.cell_summary import CellSummary
from ftlab.tracking import artifacts
from ftlab.tracking.artifacts import DamagedArtifact
from ftlab.tracking.metric_facts import MetricFacts, Record, lookup, named
from ftlab.tracking.records import CellKey, CellRecord, RunRecord
from ftlab.tracking.tracker import Tracker

if TYPE_CHECKING:
    from ftlab.tasks.base import Task

logger = logging.getLogger("ftlab.reports")
Contributions = Callable[[str, Mapping[str, Sequence[Any]]], NDArray[np.float64] | None]
"""A task's `contributions`."""


def recorded(records: Iterable[CellRecord]) -> dict[str, Record]:
    """Facts about metrics by data set; empty ones for cells that an earlier version ran."""
    by_dataset: dict[str, dict[str, MetricFacts]] = {}
    for record in {(each.key.dataset, id(each.facts)): each for each in records}.values():
        by_dataset.setdefault(record.key.dataset, {}).update(record.facts)
    return dict(by_dataset)


def merged(records: Mapping[str, Record]) -> Record:
    """Facts about the metrics of all data sets."""
    return {name: facts for record in records.values() for name, facts in record.items()}


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


@dataclass(frozen=True)
class CellMetric:
    """One cell's metric.

    Attributes:
        key: the cell.
        values: by seed, of finished runs that have it.
        examples: by seed, what each test example adds to it, by the example's id; seeds whose
            predictions are missing, or do not tell, are left out.
        damaged: runs whose predictions are not what they wrote, and that are left out too.
    """

    key: CellKey
    values: dict[int, float]
    examples: dict[int, pd.Series] = field(default_factory=dict)
    damaged: tuple[DamagedArtifact, ...] = ()

    def same_examples(self, other: CellMetric) -> bool:
        """Whether all runs of both saw the same examples in the same order."""
        seen = [series.index for cell in (self, other) for series in cell.examples.values()]
        return all(index.equals(seen[0]) for index in seen)


@dataclass(frozen=True)
class Evidence:
    """What figures, diagnoses and pages are made of.

    Attributes:
        study, question: from the study file.
        metric: the one compared, with its split.
        higher_is_better: of the metric.
        rows: of the table.
        records: of the cells that the store has.
        tasks: by data set.
        tracker: where files and curves are.
    """

    study: str
    question: str
    metric: str
    higher_is_better: bool
    rows: tuple[CellSummary, ...]
    records: Mapping[CellKey, CellRecord]
    tasks: Mapping[str, Task]
    tracker: Tracker
    _read: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def techniques(self) -> list[str]:
        """By name, in the study's order: what `colours.styles` wants."""
        return list(dict.fromkeys(row.key.technique for row in self.rows))

    @cached_property
    def _facts(self) -> dict[str, Record]:
        return recorded(self.records.values())

    def named(self, metric: str) -> str:
        """The metric's name, with the facts that the store holds of it."""
        return named(metric, merged(self._facts))

    def upwards(self, metric: str) -> bool:
        """Look up whether more of a metric is better, on the first data set."""
        return upwards(metric, self.rows[0].key.dataset, self._facts, self.tasks)

    @property
    def groups(self) -> list[tuple[str, str]]:
        """Backbones and data sets, in the table's order."""
        return list(dict.fromkeys(row.group for row in self.rows))

    def runs(self, key: CellKey) -> tuple[RunRecord, ...]:
        """A cell's finished runs, by seed."""
        return self.records[key].finished if key in self.records else ()

    def values(self, key: CellKey, metric: str) -> dict[int, float]:
        """A metric of a cell's finished runs by seed; what is missing or not finite is left out."""
        return {run.seed: run.metrics[metric] for run in self.runs(key)
                if math.isfinite(run.metrics.get(metric, math.nan))}

    def class_counts(self, group: tuple[str, str]) -> dict[str, int]:
        """Training examples of each class of a backbone's data set; empty where none is known."""
        asked = (group, "class counts")
        if asked not in self._read:
            keys = [row.key for row in self.rows if row.group == group]
            run = next((run for key in keys for run in self.runs(key)), None)
            profile = {} if run is None else self.tracker.data_sets(run.run_id).get("train", {})
            self._read[asked] = dict(profile.get("classes", {}))
        found: dict[str, int] = self._read[asked]
        return found

    def predictions(self, run: RunRecord, split: str = "test") -> dict[str, list[Any]] | None:
        """As `predictions`, read once; None for damaged ones too, after a warning."""
        asked = (run.run_id, split)
        if asked not in self._read:
            try:
                self._read[asked] = predictions(self.tracker, run, split)
            except DamagedArtifact as error:
                logger.warning("%s; figures and diagnoses go without it", error.what)
                self._read[asked] = None
        found: dict[str, list[Any]] | None = self._read[asked]
        return found

    def history(self, run: RunRecord, metric: str) -> list[tuple[int, float]]:
        """A metric's course as (step, value); read once."""
        asked = (run.run_id, metric, "history")
        if asked not in self._read:
            self._read[asked] = self.tracker.history(run.run_id, metric)
        found: list[tuple[int, float]] = self._read[asked]
        return found


def measured(record: CellRecord, metric: str, tracker: Tracker | None,
             contributions: Contributions | None) -> CellMetric:
    """Read a cell's metric of the test split.

    Args:
        record: from the store.
        metric: with its split, as `test/accuracy`.
        tracker: where the predictions are; None leaves them unread.
        contributions: of the cell's task; None likewise.
    """
    values = {run.seed: run.metrics[metric] for run in record.finished
              if math.isfinite(run.metrics.get(metric, math.nan))}
    found: dict[int, pd.Series] = {}
    damaged = []
    split, _, name = metric.partition("/")
    for run in record.finished:
        if tracker is None or contributions is None or run.seed not in values:
            continue
        try:
            records = predictions(tracker, run, {"val": "validation"}.get(split, split))
        except DamagedArtifact as error:
            damaged.append(error)
            continue
        added = None if records is None else contributions(name, records)
        if records is not None and added is not None and _usable(added):
            found[run.seed] = pd.Series(added, index=pd.Index(records["id"]))
    return CellMetric(record.key, values, found, tuple(damaged))


def predictions(tracker: Tracker, run: RunRecord, split: str = "test"
                ) -> dict[str, list[Any]] | None:
    """A run's prediction records, by column; None where it has none.

    Raises:
        DamagedArtifact: they are not what the run wrote.
    """
    name = f"predictions/{split}.parquet"
    stored = artifacts.whole(tracker, run, name)
    if stored is None:
        return None
    try:
        found: dict[str, list[Any]] = pq.read_table(io.BytesIO(stored)).to_pydict()
    except (pa.ArrowException, OSError, ValueError) as error:  # of a run without a record of it
        raise DamagedArtifact(run, name, (str(error).splitlines() or ["unreadable"])[0]) from error
    return found


def _usable(added: NDArray[np.float64]) -> bool:
    return len(added) > 1 and bool(np.isfinite(added).all())
