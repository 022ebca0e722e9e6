"""From tracking to `results/<study>/`: the study's table, its runs and its figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from ftlab.errors import InputError
from ftlab.reports import against_paper, formats
from ftlab.reports.comparison import Comparison, compared
from ftlab.reports.evidence import Evidence, TaskFacts
from ftlab.reports.export import runs_csv, table_lines, tests_csv, to_csv, write_file
from ftlab.reports.figures import room
from ftlab.reports.latex import latex
from ftlab.reports.rows import Row, build
from ftlab.reports.sheet import Sheet, layout
from ftlab.reports.verdict import answer
from ftlab.studies.published import Paper
from ftlab.tracking.plain import redact
from ftlab.tracking.records import CellKey, CellRecord
from ftlab.tracking.tracker import Tracker


@dataclass(frozen=True)
class Report:
    """What a study says.

    Attributes:
        metric: the one compared.
        rows: the cells, as numbers.
        sheet: the cells, as text.
        paths: files written, in a fixed order.
        comparisons: of the cells of each backbone and data set.
        paper: its published numbers beside ours; None where it has none.
    """

    study: str
    metric: str
    rows: tuple[Row, ...]
    sheet: Sheet
    paths: tuple[Path, ...]
    comparisons: tuple[Comparison, ...] = ()
    paper: Sheet | None = None

    @property
    def sentences(self) -> list[str]:
        """The answer, one sentence a backbone and data set, as far as the tests support it."""
        return [answer(comparison, self.metric, len(self.comparisons) > 1)
                for comparison in self.comparisons if comparison.best]

    @property
    def frame(self) -> pd.DataFrame:
        """One row a cell: numbers in base units (fractions, seconds, bytes)."""
        return pd.DataFrame(table_lines(self.rows, self.metric))

    def rich(self, room: int | None = None) -> Table:
        """For a terminal with room for so many characters in a line; None shows all columns."""
        return formats.terminal(self.sheet, room)

    def _repr_html_(self) -> str:
        return formats.page(self.sheet)


def write(
    study: str,
    cells: Sequence[CellKey],
    tracker: Tracker,
    results: Path,
    provenance: dict[str, Any],
    metric: str = "test/accuracy",
    higher_is_better: bool = True,
    tasks: Mapping[str, TaskFacts] | None = None,
    paper: Paper | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    records: Sequence[CellRecord] | None = None,
) -> Report:
    """Write `results/<study>/`: the same store gives the same bytes.

    Args:
        study: its name.
        cells: those of the study file, in its order; what else the store holds is left out.
        tracker: where the runs are.
        results: the folder above the study's own.
        provenance: versions, commit, fingerprints, device; no time of writing.
        metric: the one to compare, as named in MLflow.
        higher_is_better: the metric's direction.
        tasks: by data set; predictions are read where they are given.
        paper: published numbers to stand beside, as `paper.*`.
        groups: names of data sets by group, which the paper may average over.
        records: the study's cells, where they are read already.

    Raises:
        InputError: nothing is tracked of the study, no run has the metric, or the folder cannot
            be written.
    """
    if not study or Path(study).name != study or study == "..":
        raise InputError(f"study {study!r}: not the name of a folder", "name the study otherwise")
    records = tracker.cells(study) if records is None else records
    rows, comparisons = compared(build(cells, records, metric, higher_is_better), records, metric,
                                 higher_is_better, tracker,
                                 {name: task.contributions for name, task in (tasks or {}).items()})
    sheet = layout(study, rows, metric, comparisons, higher_is_better)
    lines = table_lines(rows, metric)
    files: dict[str, str | bytes] = {
        "runs.csv": runs_csv(cells, records),
        **formatted("table", sheet, list(lines[0]) if lines else [], lines),
        "tests.csv": tests_csv(comparisons),
        "provenance.json": _json(provenance),
    }
    published = None
    if paper is not None:
        beside = against_paper.beside(paper, cells, {r.key: r for r in records}, groups or {})
        published = against_paper.layout(study, paper, beside)
        numbers = against_paper.lines(study, paper, beside)
        files |= formatted("paper", published, list(numbers[0]) if numbers else [], numbers)
    folder = results / study
    paths = [write_file(folder / name, content) for name, content in files.items()]
    evidence = Evidence(study, str(provenance.get("question", "")), metric, higher_is_better,
                        tuple(rows), {record.key: record for record in records}, tasks or {}, tracker)
    paths += room.write(evidence, folder / "figures")
    return Report(study, metric, tuple(rows), sheet, tuple(paths), tuple(comparisons), published)


def formatted(name: str, sheet: Sheet, columns: Sequence[str],
              lines: Sequence[Mapping[str, Any]]) -> dict[str, str | bytes]:
    """A table in every format, by file name.

    Args:
        name: without ending.
        sheet: as text.
        columns: of the CSV.
        lines: as numbers, for the CSV.
    """
    return {f"{name}.md": formats.markdown(sheet), f"{name}.tex": latex(sheet),
            f"{name}.csv": to_csv(columns, lines), f"{name}.html": formats.page(sheet)}


def _json(provenance: dict[str, Any]) -> str:
    text = json.dumps(provenance, indent=2, sort_keys=True, ensure_ascii=False, default=str)
    return redact(text) + "\n"
