"""Puts what the table says back onto the cells in MLflow, whose UI cannot average over seeds."""

from __future__ import annotations

import math
import time

from ftlab.reports.formats import markdown_head, markdown_line
from ftlab.reports.table import Report
from ftlab.tracking.tracker import Tracker

COSTS = ("cost/trainable_parameters", "cost/train_seconds", "cost/peak_memory_bytes")


def publish(report: Report, tracker: Tracker) -> None:
    """Log rank, table row and figures to each cell of a report.

    The rank is among the complete cells of the same backbone and data set; an incomplete cell has
    the metric `rank` nan and the tag `ftlab.rank` `-`. The study's view in the UI (see
    `Tracker.view_path`) gets the columns of the table.
    """
    now = int(time.time() * 1000)
    lines = [line for _, group in report.sheet.groups for line in group]
    figures = {path.parent for path in report.paths if path.suffix == ".png"}
    for row, line in zip(report.rows, lines, strict=True):
        if not row.cell_id:
            continue
        rank = math.nan if row.rank is None else float(row.rank)
        text = "\n".join([*markdown_head(report.sheet), markdown_line(line)])
        tracker.log_metrics(row.cell_id, {"rank": rank}, step=0, timestamp_ms=now)
        tracker.set_tags(
            row.cell_id,
            {
                "ftlab.rank": "-" if row.rank is None else str(row.rank),
                "ftlab.table_row": " | ".join(line.texts),
                "mlflow.note.content": f"{text}\n\n{row.note}".rstrip() + "\n",
            },
        )
        tracker.log_text(row.cell_id, text + "\n", "table_row.md")
        for folder in sorted(figures):
            tracker.log_artifacts(row.cell_id, folder, "figures")
    means = [f"{report.metric}.{part}" for part in ("mean", "std", "n")]
    costs = [f"{name}.mean" for name in COSTS]
    tracker.set_view(report.study, ["rank", *means, report.metric, *costs])
