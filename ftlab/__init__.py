"""ftlab: which way of adapting a pre-trained model is best, by how much, at what cost."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ftlab.exports.export import export_run as export_run
    from ftlab.exports.predictions import predict as predict
    from ftlab.reports.drift.compare import compare as compare
    from ftlab.reports.study_figures import plot as plot
    from ftlab.reports.study_report import report as report
    from ftlab.reports.study_table import table as table
    from ftlab.reproduction import reproduce as reproduce
    from ftlab.studies.study import load_study as load_study
    from ftlab.sweeps.coordinator import run_sweep as run_sweep
    from ftlab.sweeps.study_runs import run_study as run_study
    from ftlab.sweeps.sweep import load_sweep as load_sweep
    from ftlab.transfer_scores import transferability as transferability

__all__ = [
    "compare", "export_run", "load_study", "load_sweep", "plot", "predict", "report", "reproduce",
    "run_study", "run_sweep", "table", "transferability",
]  # fmt: skip

_HOME = {
    "compare": "ftlab.reports.drift.compare",
    "export_run": "ftlab.exports.export",
    "load_study": "ftlab.studies.study",
    "load_sweep": "ftlab.sweeps.sweep",
    "plot": "ftlab.reports.study_figures",
    "predict": "ftlab.exports.predictions",
    "report": "ftlab.reports.study_report",
    "reproduce": "ftlab.reproduction",
    "run_study": "ftlab.sweeps.study_runs",
    "run_sweep": "ftlab.sweeps.coordinator",
    "table": "ftlab.reports.study_table",
    "transferability": "ftlab.transfer_scores",
}


def __getattr__(name: str) -> Any:
    # Imported at first use: `ftlab --help` must not wait for torch.
    if name not in _HOME:
        raise AttributeError(f"module 'ftlab' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
