"""The figures of a study file, from what the tracking store holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ftlab.reports.comparison import Comparison, compared
from ftlab.reports.evidence import Evidence
from ftlab.reports.figures import room
from ftlab.reports.rows import build as build_rows
from ftlab.studies.known_task import known_tasks
from ftlab.studies.study import Study
from ftlab.tracking.sweeps import SweepTracker
from ftlab.tracking.tracker import Tracker


@dataclass(frozen=True)
class Plotted:
    """What was drawn.

    Attributes:
        paths: files written, in a fixed order.
        captions: by figure.
    """

    paths: tuple[Path, ...]
    captions: dict[str, str]


def plot(study: Study, tracking_uri: str | None = None, results: str | Path = "results",
         only: Sequence[str] = ()) -> Plotted:
    """Draw a study's figures into `results/<study>/figures/`, as `table` does with all of them.

    Args:
        study: from `load_study`.
        tracking_uri: MLflow's store; None as in `Tracker`.
        results: the folder above the study's own.
        only: names of figures, `scores` for instance; empty for all.

    Raises:
        InputError: nothing of the study is tracked, or there is no figure of a name.
    """
    tracker = SweepTracker(tracking_uri)
    evidence, _ = gather(study, tracker)
    folder = Path(results) / study.name / "figures"
    paths = room.write(evidence, folder, only)
    captions = {each.name: each.caption for each in room.drawn(evidence, only)}
    tracker.close()
    return Plotted(tuple(paths), captions)


def gather(study: Study, tracker: Tracker) -> tuple[Evidence, list[Comparison]]:
    """Read a study's cells, and compare them: what figures and the page are made of.

    Args:
        study: from `load_study`; cells that the store lacks show as missing.
        tracker: a `SweepTracker` where budget curves are wanted.

    Raises:
        InputError: nothing of the study is tracked.
    """
    keys = [cell.key for cell in study.cells]
    wanted = set(keys)
    records = {each.key: each for each in tracker.cells(study.name) if each.key in wanted}
    tasks = known_tasks(study)
    higher = tasks[keys[0].dataset].higher_is_better(study.report.removeprefix("test/"))
    rows, comparisons = compared(
        build_rows(keys, records.values(), study.report, higher), list(records.values()),
        study.report, higher, tracker, {name: task.contributions for name, task in tasks.items()})
    return Evidence(study.name, study.question, study.report, higher, tuple(rows), records, tasks,
                    tracker), comparisons
