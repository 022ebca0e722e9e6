"""The figures of a study file, from what the tracking store holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ftlab.reports.comparison import compared
from ftlab.reports.evidence import Evidence
from ftlab.reports.figures import room
from ftlab.reports.rows import build as build_rows
from ftlab.studies.config import build
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
    evidence = collect(study, tracker)
    folder = Path(results) / study.name / "figures"
    paths = room.write(evidence, folder, only)
    captions = {each.name: each.caption for each in room.drawn(evidence, only)}
    tracker.close()
    return Plotted(tuple(paths), captions)


def collect(study: Study, tracker: Tracker) -> Evidence:
    """What figures are made of.

    Args:
        study: from `load_study`; cells that the store lacks show as missing.
        tracker: a `SweepTracker` where budget curves are wanted.

    Raises:
        InputError: nothing of the study is tracked.
    """
    keys = [cell.key for cell in study.cells]
    tasks = {cell.key.dataset: build(cell.data).task for cell in study.cells}
    higher = tasks[keys[0].dataset].higher_is_better(study.report.removeprefix("test/"))
    records = [record for record in tracker.cells(study.name) if record.key in keys]
    rows, _ = compared(build_rows(keys, records, study.report, higher), records, study.report,
                       higher, tracker, {name: task.contributions for name, task in tasks.items()})
    return Evidence(study.name, study.question, study.report, higher, tuple(rows),
                    {record.key: record for record in records}, tasks, tracker)
