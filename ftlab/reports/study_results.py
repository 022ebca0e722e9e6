"""One study as the store has it: the source of tables, figures, page and diagnoses."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar

from ftlab.errors import InputError
from ftlab.reports.cell_summary import CellSummary, build
from ftlab.reports.comparison import Comparison, compared
from ftlab.reports.guesses import most_frequent, without_learning
from ftlab.reports.metric_record import merged, recorded, upwards
from ftlab.statistics.clusters import CLUSTER, effective_size
from ftlab.statistics.collapse import FAR, collapsed
from ftlab.statistics.seed_summary import over_examples
from ftlab.studies.seeds import UntilDecided
from ftlab.studies.study import Study
from ftlab.studies.study_tasks import StudyTasks
from ftlab.studies.tuned import Tuned
from ftlab.studies.vary import Levels
from ftlab.tracking.artifacts import DamagedArtifact
from ftlab.tracking.cell_metric import Contributions, predictions, split_and_name
from ftlab.tracking.metric_facts import Record, lookup, named
from ftlab.tracking.metric_range import unit
from ftlab.tracking.records import CellKey, CellRecord, RunRecord
from ftlab.tracking.tracker import Tracker

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ftlab.tasks.base import Task

logger = logging.getLogger("ftlab.reports")
T = TypeVar("T")


@dataclass(frozen=True)
class StudyResults:
    """A study's cells; compared by its own metric after `compared`.

    Attributes:
        study: its name.
        metric: the one compared, with its split.
        keys: its cells, in its order.
        records: of those that the store has.
        tasks: by data set.
        data_groups: names of data sets by group.
        tracker: where curves and predictions are; None leaves them unread.
        question: the study's.
        baseline: the technique that the others are compared with; empty for none.
        higher_is_better: of the metric.
        rows: the table's, from `compared`.
        comparisons: of the cells of each backbone and data set, from `compared`.
        levels: of the entries whose values vary.
        until: when no more seeds are needed; None where every cell has all of them.
        tuned: how the study's settings were found; None where nobody said.
    """

    study: str
    metric: str
    keys: Sequence[CellKey]
    records: Mapping[CellKey, CellRecord]
    tasks: Mapping[str, Task]
    data_groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    tracker: Tracker | None = None
    question: str = ""
    baseline: str = ""
    higher_is_better: bool = True
    rows: tuple[CellSummary, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    levels: Levels = field(default_factory=dict)
    until: UntilDecided | None = None
    tuned: Tuned | None = None
    _read: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def directed(self) -> StudyResults:
        """The same results with the direction of the study's metric, which may build a task.

        Raises:
            InputError: the first data set's task has no such metric.
        """
        return replace(self, higher_is_better=self.upwards(self.metric))

    def compared(self) -> StudyResults:
        """The same results with rows and comparisons by the study's metric.

        Raises:
            InputError: runs are finished, and none has the metric.
        """
        records, metric = list(self.records.values()), self.named(self.metric)
        rows, comparisons = compared(
            build(self.keys, records, metric, self.higher_is_better, until=self.until), records,
            metric, self.higher_is_better, self.tracker, self.contributions, self.baseline,
            self.until)
        rows = [self.completed(row, metric, self.higher_is_better) for row in rows]
        return replace(self, metric=metric, rows=tuple(rows), comparisons=tuple(comparisons))

    def completed(self, row: CellSummary, metric: str, upwards: bool) -> CellSummary:
        """The row with its collapsed seeds and, where all are equal, the test examples' interval.

        Args:
            row: with its values.
            metric: theirs.
            upwards: whether more of it is better.
        """
        summary, nothing = row.summary, without_learning(unit(metric), upwards)
        if not math.isfinite(summary.mean):
            return row
        far = nothing is not None and max(row.values) - min(row.values) >= FAR
        # predictions are read, and a task is built, where they are needed alone
        tested = self._right_or_wrong(row.key, metric) if summary.std == 0 or far else None
        if tested and summary.std == 0 and (size := self._size(row.key, metric, tested)):
            summary = over_examples(summary, size)
        if tested and self.tasks[row.key.dataset].one_class:
            nothing = most_frequent(tested["target"])[1]
        return replace(row, summary=summary, collapsed=None if nothing is None else collapsed(
            row.values, nothing, upwards))

    def _size(self, key: CellKey, metric: str, tested: Mapping[str, Sequence[Any]]) -> float:
        """How many independent test examples say as much; 0 for one cluster, or an unknown part of each."""
        added = self.contributions[key.dataset](split_and_name(metric)[1], tested)
        return 0.0 if added is None else effective_size(added, tested.get(CLUSTER))

    def _right_or_wrong(self, key: CellKey, metric: str) -> dict[str, list[Any]] | None:
        """Prediction records of a cell's first run that has them, if the metric counts right answers."""
        split, name = split_and_name(metric)
        if self.tracker is None or key.dataset not in self.tasks:
            return None
        found = (self.predictions(run, split) for run in self.runs(key))
        records = next((records for records in found if records), None)
        if records is None or not any(entry.name == name and entry.right_or_wrong
                                      for entry in self.tasks[key.dataset].metrics()):
            return None
        return records

    @cached_property
    def facts(self) -> dict[str, Record]:
        """Facts about metrics by data set."""
        return recorded(self.records.values())

    def named(self, metric: str) -> str:
        """The metric's name, with the facts that the store holds of it."""
        return named(metric, merged(self.facts))

    def upwards(self, metric: str) -> bool:
        """Look up whether more of a metric is better, on the first data set."""
        return upwards(metric, self.keys[0].dataset, self.facts, self.tasks)

    @property
    def contributions(self) -> dict[str, Contributions]:
        """Contributions of examples to metrics, by data set; a task is built once there are predictions."""
        return {name: partial(_contributions, self.tasks, name) for name in self.tasks}

    @property
    def datasets(self) -> list[str]:
        """In the study's order."""
        return list(dict.fromkeys(key.dataset for key in self.keys))

    def direction(self, dataset: str, metric: str) -> bool | None:
        """True where more of a metric is better; None for costs and metrics that the task lacks."""
        if metric.startswith("cost/"):
            return None
        record = self.facts.get(dataset, {})
        if record and lookup(metric, record) is None:
            return None
        try:
            return upwards(metric, dataset, self.facts, self.tasks)
        except InputError:  # another data set's task has it; here its column stays empty
            return None

    @property
    def techniques(self) -> list[str]:
        """By name, in the study's order: what `colours.styles` wants."""
        return list(dict.fromkeys(row.key.technique for row in self.rows))

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
        def read() -> dict[str, int]:
            keys = [row.key for row in self.rows if row.group == group]
            run = next((run for key in keys for run in self.runs(key)), None)
            if run is None or self.tracker is None:
                return {}
            return dict(self.tracker.data_sets(run.run_id).get("train", {}).get("classes", {}))

        return self._once((group, "class counts"), read)

    def training_examples(self, dataset: str) -> int | None:
        """How many examples a data set trains on; None where nothing of it is stored."""
        def read() -> int | None:
            runs = (run for key in self.keys if key.dataset == dataset for run in self.runs(key))
            run = next(runs, None)
            if run is None or self.tracker is None:
                return None
            count: int | None = self.tracker.data_sets(run.run_id).get("train", {}).get("examples")
            return count

        return self._once((dataset, "training examples"), read)

    def predictions(self, run: RunRecord, split: str = "test") -> dict[str, list[Any]] | None:
        """Prediction records by column, read once; None for damaged ones too, after a warning."""
        def read() -> dict[str, list[Any]] | None:
            try:
                return None if self.tracker is None else predictions(self.tracker, run, split)
            except DamagedArtifact as error:
                logger.warning("%s; figures and diagnoses go without it", error.what)
                return None

        return self._once((run.run_id, split), read)

    def history(self, run: RunRecord, metric: str) -> list[tuple[int, float]]:
        """A metric over the steps as (step, value), read once."""
        def read() -> list[tuple[int, float]]:
            return [] if self.tracker is None else self.tracker.history(run.run_id, metric)

        return self._once((run.run_id, metric, "history"), read)

    def _once(self, key: object, read: Callable[[], T]) -> T:
        if key not in self._read:
            self._read[key] = read()
        value: T = self._read[key]
        return value


def _contributions(tasks: Mapping[str, Task], dataset: str, metric: str,
                   records: Mapping[str, Sequence[Any]]) -> NDArray[np.float64] | None:
    return tasks[dataset].contributions(metric, records)


def read(study: Study, tracker: Tracker) -> StudyResults:
    """Read a study's cells; those of other settings that the store holds are left out.

    Args:
        study: from `load_study`; cells that the store lacks show as missing.
        tracker: of the store.

    Raises:
        InputError: nothing of the study is tracked, or nothing with these settings.
    """
    stored = tracker.cells(study.name)
    if not {cell.key for cell in study.cells} <= {record.key for record in stored}:
        study = study.as_stored(tracker.stored_params(study.name))
    keys = [cell.key for cell in study.cells]
    wanted = set(keys)
    records = {record.key: record for record in stored if record.key in wanted}
    if stored and not records:  # else all that ran would be shown as not run
        raise InputError(
            f"study {study.name}: the store has {len(stored)} cells of it, none with these settings",
            "give the --set that ftlab run had, or ftlab run these")
    return StudyResults(study.name, study.report, keys, records, StudyTasks(study), study.groups,
                        tracker, study.question, study.baseline, levels=study.levels, until=study.until,
                        tuned=study.tuned)
