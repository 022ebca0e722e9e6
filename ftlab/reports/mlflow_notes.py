"""Descriptions of a study and of its cells for MLflow's UI, in Markdown."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from ftlab.reports.cell_summary import CellSummary
from ftlab.reports.formats import escape_markdown, markdown
from ftlab.reports.study_files import Report
from ftlab.reports.table import Line, Table
from ftlab.tracking.mlflow_values import LONGEST_TAG

MARK = "► "


def describe_cell(report: Report, row: CellSummary) -> str:
    """The study's table with the cell's line marked, under a sentence of where it stands.

    MLflow keeps 5,000 characters: of a large study it is the table of the cell's own backbone and
    data set, or its line alone.
    """
    number = report.rows.index(row)
    groups, of_cell, seen = report.table.groups, 0, 0
    for place, (_, lines) in enumerate(groups):
        if seen <= number < seen + len(lines):
            of_cell, number = place, number - seen
            break
        seen += len(lines)
    title, lines = groups[of_cell]
    line = replace(lines[number], texts=(MARK + lines[number].texts[0], *lines[number].texts[1:]))
    marked = (title, (*lines[:number], line, *lines[number + 1 :]))
    alone = (title, (line,))
    return _first_that_fits(
        [[*groups[:of_cell], marked, *groups[of_cell + 1 :]], [marked], [alone]],
        lambda kept: "\n\n".join([_standing(report, row), _table(report.table, kept), _CELL]),
    )


def describe_study(report: Report, question: str) -> str:
    """The question, the table, and how to continue.

    Of a study whose table is longer than MLflow keeps, as many groups as fit.
    """
    groups = report.table.groups
    begin = f"{escape_markdown(question)}\n\n" if question else ""
    return _first_that_fits(
        [groups[:count] for count in range(len(groups), 0, -1)] + [[]],
        lambda kept: begin + _table(report.table, kept) + "\n" + _study(report.study),
    )


def _first_that_fits(
    choices: Sequence[Sequence[tuple[str, tuple[Line, ...]]]],
    write: Callable[[Sequence[tuple[str, tuple[Line, ...]]]], str],
) -> str:
    texts = (write(kept) for kept in choices)
    last = ""
    for last in texts:
        if len(last) <= LONGEST_TAG:
            break
    return last


_RULE = re.compile(r"(?!\|)|\| :?--")  # below the headings; and what is no line of a table
_CELL_END = re.compile(r" \|(?=.)")
_SPACE = "&emsp; |"

_CELL = (
    "The runs of the seeds are nested below this cell, which has their mean, standard deviation "
    "and interval as metrics (`.mean`, `.std`, `.ci_low`, `.ci_high`, over `.n` seeds). "
    "`param/...` are its hyperparameters as numbers, so that they sort. Figures are artifacts."
)


def _study(study: str) -> str:
    return (
        f"Continue: `ftlab run STUDY` with the file of study {escape_markdown(study)} does what is "
        "unfinished and repeats nothing; `ftlab table STUDY` writes this again. Compare: tick runs, "
        "then Compare; or the chart tab. Where MLflow shows its menu for language agents, choose Model "
        "training at the top left."
    )


def _standing(report: Report, row: CellSummary) -> str:
    """`**Rank 2 of 4** by test/accuracy, bbc from minilm.`, or what is missing."""
    where = escape_markdown(f"{row.key.dataset} from {row.key.backbone}")
    metric = escape_markdown(report.metric)
    if row.rank is None:
        return f"**Incomplete**, so it has no rank by {metric}, {where}: {escape_markdown(row.note)}."
    rivals = [other for other in report.rows if other.group == row.group and other.rank]
    return f"**Rank {row.rank} of {len(rivals)}** by {metric}, {where}."


def _table(table: Table, groups: Sequence[tuple[str, tuple[Line, ...]]]) -> str:
    left = len(table.groups) - len(groups)
    lines = markdown(replace(table, groups=tuple(groups))).splitlines()
    # MLflow's tables have no space between columns.
    text = "".join(f"{line if _RULE.match(line) else _CELL_END.sub(_SPACE, line)}\n" for line in lines)
    without = f"\n{left} of {len(table.groups)} tables are not shown here, for room.\n"
    return text + (without if left else "")
