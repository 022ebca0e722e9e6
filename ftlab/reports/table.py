"""From tracking to `results/<study>/`: the study's table, its runs and its figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.console import Group

from ftlab.errors import InputError
from ftlab.redaction import redact
from ftlab.reports import against_baseline, against_paper, formats
from ftlab.reports.cell_summary import CellSummary
from ftlab.reports.comparison import Comparison
from ftlab.reports.csv_files import runs_csv, table_lines, tests_csv, to_csv, write_file
from ftlab.reports.figures import all_figures
from ftlab.reports.latex import latex
from ftlab.reports.sentences import answer
from ftlab.reports.sheet import Sheet, layout
from ftlab.reports.study_results import StudyResults, gather
from ftlab.studies.paper_numbers import Paper
from ftlab.tracking.records import CellKey, CellRecord
from ftlab.tracking.tracker import Tracker

if TYPE_CHECKING:
    from ftlab.tasks.base import Task


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
    rows: tuple[CellSummary, ...]
    sheet: Sheet
    paths: tuple[Path, ...]
    comparisons: tuple[Comparison, ...] = ()
    paper: Sheet | None = None

    @property
    def sentences(self) -> list[str]:
        """The answer as far as the tests support it: against the baseline, and which is best."""
        best = [answer(comparison, self.metric, len(self.comparisons) > 1)
                for comparison in self.comparisons if comparison.best]
        return against_baseline.sentences(self.comparisons, self.metric) + best

    @property
    def frame(self) -> pd.DataFrame:
        """One row a cell: numbers in base units (fractions, seconds, bytes)."""
        return pd.DataFrame(table_lines(self.rows, self.metric))

    def rich(self, room: int | None = None) -> Group:
        """For a terminal with room for so many characters in a line; None shows all columns."""
        return formats.terminal(self.sheet, room)

    def _repr_html_(self) -> str:
        return "\n".join(map(formats.page, (self.sheet, self.paper) if self.paper else (self.sheet,)))


def write(
    study: str,
    cells: Sequence[CellKey],
    tracker: Tracker,
    results: Path,
    provenance: dict[str, Any],
    metric: str = "test/accuracy",
    higher_is_better: bool = True,
    tasks: Mapping[str, Task] | None = None,
    paper: Paper | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    records: Sequence[CellRecord] | None = None,
    baseline: str = "",
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
        baseline: the technique that the others are compared with.

    Raises:
        InputError: nothing is tracked of the study, no run has the metric, or the folder cannot
            be written.
    """
    if not study or Path(study).name != study or study == "..":
        raise InputError(f"study {study!r}: not the name of a folder", "name the study otherwise")
    records = tracker.cells(study) if records is None else records
    source = StudyResults(study, metric, cells, {record.key: record for record in records}, tasks or {},
                    groups or {}, tracker, str(provenance.get("question", "")), baseline)
    evidence, comparisons = gather(source, higher_is_better)
    rows, metric = evidence.rows, evidence.metric
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
        paper = replace(paper, metric=evidence.named(paper.metric))
        beside = against_paper.beside(paper, cells, source.records, source.groups)
        published = against_paper.layout(study, paper, beside)
        numbers = against_paper.lines(study, paper, beside)
        files |= formatted("paper", published, list(numbers[0]) if numbers else [], numbers)
    folder = results / study
    paths = [write_file(folder / name, content) for name, content in files.items()]
    paths += all_figures.write(evidence, folder / "figures")
    return Report(study, metric, rows, sheet, tuple(paths), tuple(comparisons), published)


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
