"""Puts what the table says back onto the cells in MLflow, whose UI cannot average over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ftlab.reports.colours import styles
from ftlab.reports.formats import markdown_head, markdown_line
from ftlab.reports.mlflow_notes import describe_cell, describe_study
from ftlab.reports.study_files import Report
from ftlab.reports.verdicts import tag
from ftlab.tracking.records import CellRecord
from ftlab.tracking.tags import COLOUR
from ftlab.tracking.tracker import Tracker
from ftlab.tracking.ui_layout import NOTE


def publish(
    report: Report, tracker: Tracker, question: str = "",
    records: Sequence[CellRecord] | None = None,
) -> None:
    """Log rank, table row, description and figure of scores to each cell of a report.

    The rank is among the complete cells of the same backbone and data set; an incomplete cell has
    none, and the tag `ftlab.rank` `-`. Where it had one before, MLflow can only overwrite it, with
    nan. The study's pages in the UI (see `Tracker.view_paths`) get the columns of the table, its
    description the table itself.

    Args:
        report: what the table says.
        tracker: where the runs are.
        question: the study's.
        records: of the cells, where they were read already; a large study takes seconds.
    """
    lines = [line for _, group in report.table.groups for line in group]
    # one of them: a study may have thousands of cells, and its folder of results has all
    figure = next((path for path in report.paths if path.name == "scores.png"), None)
    look = styles(row.key.technique for row in report.rows)
    read = tracker.cells(report.study) if records is None else records
    stored = {record.cell_id: record for record in read}
    comparisons = {comparison.group: comparison for comparison in report.comparisons}
    for row, line in zip(report.rows, lines, strict=True):
        if not row.cell_id:
            continue
        verdict = tag(comparisons[row.group], row.key.technique, report.metric) \
            if row.group in comparisons else ""
        if row.rank is not None or "rank" in stored[row.cell_id].metrics:
            rank = math.nan if row.rank is None else float(row.rank)
            tracker.set_metrics(row.cell_id, {"rank": rank})
        text = "\n".join([*markdown_head(report.table), markdown_line(line)])
        tracker.set_tags(
            row.cell_id,
            {
                "ftlab.rank": "-" if row.rank is None else str(row.rank),
                "ftlab.table_row": " | ".join(line.texts),
                NOTE: describe_cell(report, row),
                COLOUR: look[row.key.technique][0],
            } | ({"ftlab.verdict": verdict} if verdict else {}),
        )
        tracker.log_text(row.cell_id, text + "\n", "table_row.md")
        if figure is not None:
            tracker.log_file(row.cell_id, figure, "figures")
        _colour(stored[row.cell_id], look[row.key.technique][0], tracker)
    ours = [stored[row.cell_id] for row in report.rows if row.cell_id]
    names = {name for record in ours for run in record.finished for name in run.metrics}
    tracker.set_view(report.study, report.metric, names)
    tracker.describe_study(report.study, describe_study(report, question))


def _colour(record: CellRecord, colour: str, tracker: Tracker) -> None:
    """The runs of a cell in its colour; those that were begun with it have it already."""
    for run in record.runs:
        if run.tags.get(COLOUR) != colour:
            tracker.set_tags(run.run_id, {COLOUR: colour})
