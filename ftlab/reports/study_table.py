"""The table of a study file, from what the tracking store holds."""

from __future__ import annotations

from pathlib import Path

from ftlab.data.base import DataModule
from ftlab.reports.publish import publish
from ftlab.reports.table import Report, write
from ftlab.studies import provenance
from ftlab.studies.config import build
from ftlab.studies.study import Study
from ftlab.tracking.sweeps import SweepTracker


def table(study: Study, tracking_uri: str | None = None, results: str | Path = "results") -> Report:
    """Write `results/<study>/` and put rank, row and figures onto the cells in MLflow.

    Args:
        study: from `load_study`; cells that the store lacks show as missing.
        tracking_uri: MLflow's store; None as in `Tracker`.
        results: the folder above the study's own.

    Raises:
        InputError: nothing of the study is tracked.
    """
    tracker = SweepTracker(tracking_uri)  # figures show the study's sweeps
    keys = [cell.key for cell in study.cells]
    ours = [record for record in tracker.cells(study.name) if record.key in keys]
    modules: dict[str, DataModule] = {}
    for cell in study.cells:
        if cell.key.dataset not in modules:
            modules[cell.key.dataset] = build(cell.data)
    task = modules[study.cells[0].key.dataset].task
    report = write(
        study.name,
        keys,
        tracker,
        Path(results),
        provenance.collect(study.name, study.question, ours),
        metric=study.report,
        higher_is_better=task.higher_is_better(study.report.removeprefix("test/")),
        contributions={name: module.task.contributions for name, module in modules.items()},
        tasks={name: module.task for name, module in modules.items()},
    )
    publish(report, tracker)
    tracker.close()
    return report
