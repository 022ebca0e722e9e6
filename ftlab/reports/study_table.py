"""The tables of study files, from what the tracking store holds."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Group

from ftlab.activity import doing
from ftlab.reports import formats, references
from ftlab.reports.columns import grid, parse
from ftlab.reports.csv_files import write_file
from ftlab.reports.study_files import Report, formatted, write
from ftlab.reports.study_results import read
from ftlab.reports.table import Table
from ftlab.reports.to_mlflow import publish
from ftlab.studies import provenance
from ftlab.studies.study import Study
from ftlab.studies.study_snapshot import FILE, record
from ftlab.tracking.tracker import Tracker

_LONGEST = 80  # bytes of a file's name


def table(study: Study, tracking_uri: str | None = None, results: str | Path = "results") -> Report:
    """Write `results/<study>/` and put rank, row and figures onto the cells in MLflow.

    Args:
        study: from `load_study`; cells that the store lacks show as missing.
        tracking_uri: MLflow's store; None as in `Tracker`.
        results: the folder above the study's own.

    Raises:
        InputError: nothing of the study is tracked.
    """
    doing("reading the tracking store")
    tracker = Tracker(tracking_uri)  # figures show the study's sweeps
    stored = read(study, tracker).directed()
    records = list(stored.records.values())
    doing(f"writing the tables and figures of {study.name}")
    report = write(stored, Path(results), provenance.collect(study.name, study.question, records),
                   study.paper)
    recorded = write_file(Path(results) / study.name / FILE, record(study))
    cited = write_file(Path(results) / study.name / references.FILE, references.bibliography(study))
    report = replace(report, paths=(*report.paths, recorded, cited))
    publish(report, tracker, study.question, records)
    tracker.close()
    return report


@dataclass(frozen=True)
class ChosenTable:
    """A table with columns of one's choice, or of several studies.

    Attributes:
        table: as text.
        paths: files written.
        lines: as numbers.
    """

    table: Table
    paths: tuple[Path, ...]
    lines: Sequence[Mapping[str, Any]] = ()

    def rich(self, room: int | None = None) -> Group:
        """For a terminal with room for so many characters in a line; None shows all columns."""
        return formats.terminal(self.table, room)

    def _repr_html_(self) -> str:
        return formats.page(self.table)


def chosen_table(studies: Sequence[Study], columns: str = "", tracking_uri: str | None = None,
                 results: str | Path = "results") -> ChosenTable:
    """Write `results/<study>/tables/<columns>.*`, or `results/<study>+<study>/tables/...`.

    Args:
        studies: one or several, each a group of lines, or more.
        columns: as `--columns` takes them: `datasets`, or metrics and costs by comma; the
            studies' own metrics and the main costs unless said.
        tracking_uri: MLflow's store; None as in `Tracker`.
        results: the folder above.

    Raises:
        InputError: nothing of a study is tracked, or a column that no finished run has.
    """
    reports = list(dict.fromkeys(study.report for study in studies))
    text = columns or ",".join([*reports, *DEFAULT_COSTS])
    chosen = parse(text)
    tracker = Tracker(tracking_uri)
    made = grid([read(study, tracker) for study in studies], chosen)
    tracker.close()
    table = made.table()
    names, lines = made.numbers()
    together = "+".join(dict.fromkeys(study.name for study in studies))
    folder = Path(results) / _short(together) / "tables"
    files = formatted(_short(re.sub(r"[^\w.-]+", "_", ",".join(chosen))), table, names, lines)
    paths = tuple(write_file(folder / name, content) for name, content in files.items())
    return ChosenTable(table, paths, lines)


DEFAULT_COSTS = ("cost/trainable_parameters", "cost/train_seconds", "cost/peak_memory_bytes")


def _short(name: str) -> str:
    """A name that fits a file system, still its own."""
    if len(name.encode()) <= _LONGEST:
        return name
    kept = name.encode()[:_LONGEST - 9].decode(errors="ignore")
    return f"{kept}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
