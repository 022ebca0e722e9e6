"""The files of `results/<study>/`: the study's table, its runs and its figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Group

from ftlab.errors import InputError
from ftlab.redaction import redact
from ftlab.reports import against_baseline, against_paper, formats, verdicts
from ftlab.reports.cell_summary import CellSummary
from ftlab.reports.comparison import Comparison
from ftlab.reports.csv_files import runs_csv, table_lines, tests_csv, to_csv, write_file
from ftlab.reports.default_columns import default_table
from ftlab.reports.figures import all_figures
from ftlab.reports.latex import latex
from ftlab.reports.levels import covered
from ftlab.reports.metric_record import stated
from ftlab.reports.quantized import quantized
from ftlab.reports.sentences import answer
from ftlab.reports.study_results import StudyResults
from ftlab.reports.table import Table
from ftlab.studies.paper_numbers import Paper


@dataclass(frozen=True)
class Report:
    """A study's table, and the files written.

    Attributes:
        metric: the one compared.
        rows: the cells, as numbers.
        table: the cells, as text.
        paths: files written, in a fixed order.
        comparisons: of the cells of each backbone and data set.
        paper: its published numbers beside ours; None where it has none.
        over_levels: data sets of which the table speaks together.
        quantized: its models measured again with quantised weights; None where none were.
        price: run-seconds of each resolved comparison, as a sentence; empty where none was asked.
    """

    study: str
    metric: str
    rows: tuple[CellSummary, ...]
    table: Table
    paths: tuple[Path, ...]
    comparisons: tuple[Comparison, ...] = ()
    paper: Table | None = None
    quantized: Table | None = None
    over_levels: frozenset[str] = frozenset()
    price: str = ""

    @property
    def sentences(self) -> list[str]:
        """The answer as far as the tests support it: against the baseline, and which is best.

        Where a data set has levels, the table may say what holds over them, in place of each here.
        """
        best = [answer(comparison, self.metric, len(self.comparisons) > 1)
                for comparison in self.comparisons if comparison.best and comparison.group[1] not in self.over_levels]
        pairs = [sentence for comparison in self.comparisons if not comparison.baseline
                 for sentence in verdicts.between(comparison, self.metric)]
        price = [self.price] if self.price else []
        return against_baseline.sentences(self.comparisons, self.metric) + best + pairs + price

    @property
    def frame(self) -> pd.DataFrame:
        """One row a cell: numbers in base units (fractions, seconds, bytes)."""
        return pd.DataFrame(table_lines(self.rows, self.metric))

    def rich(self, room: int | None = None) -> Group:
        """For a terminal with room for so many characters in a line; None shows all columns."""
        return formats.terminal(self.table, room)

    def _repr_html_(self) -> str:
        return "\n".join(map(formats.page, filter(None, (self.table, self.quantized, self.paper))))


def write(results: StudyResults, folder: Path, provenance: dict[str, Any],
          paper: Paper | None = None) -> Report:
    """Write `results/<study>/`: the same store gives the same bytes.

    Args:
        results: what else the store holds than its keys is left out.
        folder: the folder above the study's own.
        provenance: versions, commit, fingerprints, device; no time of writing. Facts about the
            metrics are added to it.
        paper: published numbers to stand beside, as `paper.*`.

    Raises:
        InputError: no run has the metric, or the folder cannot be written.
    """
    study = results.study
    if not study or Path(study).name != study or study == "..":
        raise InputError(f"study {study!r}: not the name of a folder", "name the study otherwise")
    results = results.compared()
    table, lines = default_table(results), table_lines(results.rows, results.metric)
    afterwards = quantized(results)
    files: dict[str, str | bytes] = {
        "runs.csv": runs_csv(results.keys, results.records.values()),
        **formatted("table", table, list(lines[0]) if lines else [], lines),
        "tests.csv": tests_csv((*results.comparisons, *(afterwards.comparisons if afterwards else ()))),
        "provenance.json": _json(provenance | stated(results.facts)),
    }
    if afterwards:
        files |= formatted("quantized", afterwards.table, list(afterwards.lines[0]), afterwards.lines)
    published = None
    if paper is not None:
        paper = replace(paper, metric=results.named(paper.metric))
        beside = against_paper.beside(paper, results.keys, results.records, results.data_groups)
        published = against_paper.layout(study, paper, beside)
        numbers = against_paper.lines(study, paper, beside)
        files |= formatted("paper", published, list(numbers[0]) if numbers else [], numbers)
    paths = [write_file(folder / study / name, content) for name, content in files.items()]
    paths += all_figures.write(results, folder / study / "figures")
    return Report(study, results.metric, results.rows, table, tuple(paths), results.comparisons,
                  published, afterwards.table if afterwards else None, covered(results),
                  verdicts.price(results.comparisons, results.records.values()))


def formatted(name: str, table: Table, columns: Sequence[str],
              lines: Sequence[Mapping[str, Any]]) -> dict[str, str | bytes]:
    """A table in every format, by file name.

    Args:
        name: without ending.
        table: as text.
        columns: of the CSV.
        lines: as numbers, for the CSV.
    """
    return {f"{name}.md": formats.markdown(table), f"{name}.tex": latex(table),
            f"{name}.csv": to_csv(columns, lines), f"{name}.html": formats.page(table)}


def _json(provenance: dict[str, Any]) -> str:
    text = json.dumps(provenance, indent=2, sort_keys=True, ensure_ascii=False, default=str)
    return redact(text) + "\n"
