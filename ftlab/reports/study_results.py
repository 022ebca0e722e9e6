"""One study as the store has it: what tables, figures, page and diagnoses are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ftlab.errors import InputError
from ftlab.reports.cell_summary import build as build_rows
from ftlab.reports.comparison import Comparison, compared
from ftlab.reports.evidence import Evidence, TaskFacts
from ftlab.studies.metric_facts import known_tasks
from ftlab.studies.study import Study
from ftlab.tracking.records import CellKey, CellRecord
from ftlab.tracking.tracker import Tracker


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
    tasks: Mapping[str, TaskFacts]
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
        """Whether more of the study's metric is better, as its first data set's task says."""
        return self.tasks[self.datasets[0]].higher_is_better(self.report.removeprefix("test/"))

    def higher_is_better(self, dataset: str, metric: str) -> bool | None:
        """The metric's direction on a data set; None for costs and what its task does not have."""
        split, _, name = metric.partition("/")
        if split == "cost":
            return None
        try:
            return self.tasks[dataset].higher_is_better(name)
        except InputError:  # another data set's task has it; here its column stays empty
            return None


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
    return StudyResults(study.name, study.report, keys, records, known_tasks(study), study.groups, tracker,
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
    records = list(source.records.values())
    rows, comparisons = compared(
        build_rows(source.keys, records, source.report, higher_is_better), records, source.report,
        higher_is_better, source.tracker,
        {name: task.contributions for name, task in source.tasks.items()},
        source.baseline)
    return Evidence(source.study, source.question, source.report, higher_is_better, tuple(rows),
                    source.records, source.tasks, source.tracker), comparisons
