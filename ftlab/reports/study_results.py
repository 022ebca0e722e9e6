"""One study as the store has it: what tables, figures, page and diagnoses are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from ftlab.errors import InputError
from ftlab.reports.cell_summary import build as build_rows
from ftlab.reports.comparison import Comparison, compared
from ftlab.reports.evidence import Contributions, Evidence, merged, recorded, upwards
from ftlab.studies.study import Study
from ftlab.studies.study_tasks import StudyTasks
from ftlab.tracking.metric_facts import Record, lookup, named
from ftlab.tracking.records import CellKey, CellRecord
from ftlab.tracking.tracker import Tracker

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ftlab.tasks.base import Task


@dataclass(frozen=True)
class StudyResults:
    """One study, as the store has it.

    Attributes:
        study: its name.
        report: its metric.
        keys: its cells, in its order.
        records: of those that the store has.
        tasks: by data set.
        groups: names of data sets by group.
        tracker: where the predictions are; None leaves them unread.
        question: the study's.
        baseline: the technique that the others are compared with; empty for none.
    """

    study: str
    report: str
    keys: Sequence[CellKey]
    records: Mapping[CellKey, CellRecord]
    tasks: Mapping[str, Task]
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    tracker: Tracker | None = None
    question: str = ""
    baseline: str = ""

    @property
    def datasets(self) -> list[str]:
        """In the study's order."""
        return list(dict.fromkeys(key.dataset for key in self.keys))

    @property
    def upwards(self) -> bool:
        """Whether more of the study's metric is better, on its first data set."""
        return upwards(self.report, self.datasets[0], self.facts, self.tasks)

    @cached_property
    def facts(self) -> dict[str, Record]:
        """Facts about metrics by data set."""
        return recorded(self.records.values())

    @property
    def contributions(self) -> dict[str, Contributions]:
        """What examples add to metrics, by data set; a task is built once there are predictions."""
        return {name: partial(_contributions, self.tasks, name) for name in self.tasks}

    def higher_is_better(self, dataset: str, metric: str) -> bool | None:
        """The metric's direction on a data set; None for costs and what its task does not have."""
        if metric.startswith("cost/"):
            return None
        record = self.facts.get(dataset, {})
        if record and lookup(metric, record) is None:
            return None
        try:
            return upwards(metric, dataset, self.facts, self.tasks)
        except InputError:  # another data set's task has it; here its column stays empty
            return None


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
    keys = [cell.key for cell in study.cells]
    wanted = set(keys)
    stored = tracker.cells(study.name)
    records = {each.key: each for each in stored if each.key in wanted}
    if stored and not records:  # else all that ran would be shown as not run
        raise InputError(
            f"study {study.name}: the store has {len(stored)} cells of it, none with these settings",
            "give the --set that ftlab run had, or ftlab run these")
    return StudyResults(study.name, study.report, keys, records, StudyTasks(study), study.groups, tracker,
                  study.question, study.baseline)


def gather(source: StudyResults, higher_is_better: bool) -> tuple[Evidence, list[Comparison]]:
    """Compare a study's cells by its own metric.

    Args:
        source: from `read`, with a tracker.
        higher_is_better: the metric's direction, `source.upwards`.

    Raises:
        InputError: runs are finished, and none has the metric.
    """
    assert source.tracker is not None  # curves and predictions are read from it
    records, metric = list(source.records.values()), named(source.report, merged(source.facts))
    rows, comparisons = compared(
        build_rows(source.keys, records, metric, higher_is_better), records, metric,
        higher_is_better, source.tracker, source.contributions, source.baseline)
    return Evidence(source.study, source.question, metric, higher_is_better, tuple(rows),
                    source.records, source.tasks, source.tracker), comparisons
