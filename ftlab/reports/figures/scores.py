"""The metric of each technique: mean, interval and single seeds."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ftlab.reports.colours import Style, styles
from ftlab.reports.figures.base import Drawing
from ftlab.reports.figures.frames import lines_of, parts
from ftlab.reports.figures.labels import group_title, labels, metric_title, scale
from ftlab.reports.figures.matplotlib_axes import canvas, names
from ftlab.reports.study_results import StudyResults
from ftlab.tracking.mlflow_values import shorten


class Scores(Drawing):
    """A line a technique; a cell without a mean says why."""

    name: ClassVar[str] = "scores"
    title: ClassVar[str] = "Scores"
    order: ClassVar[int] = 10

    def data(self, results: StudyResults) -> pd.DataFrame | None:
        """A line a cell: mean, interval, `seeds` (their values), note, stands."""
        by = scale(results.metric)
        cells = pd.DataFrame([
            {
                "group": row.group, "technique": row.key.technique, "mean": by * row.summary.mean,
                "low": by * row.summary.ci_low, "high": by * row.summary.ci_high,
                "seeds": [by * value for value in
                          results.values(row.key, results.metric).values()],
                "stands": row.stands, "note": row.note,
            }
            for row in results.rows
        ])
        return cells if len(cells) and cells["mean"].notna().any() else None

    def draw(self, data: pd.DataFrame, results: StudyResults) -> Figure:
        groups = parts(data, "group")
        most = max(len(cells) for _, cells in groups)
        figure, all_axes = canvas([len(groups)], 3, 5.2, 1.1 + 0.27 * most)
        look = styles(results.techniques)
        for axes, (group, cells) in zip(all_axes, groups, strict=True):
            axes.set_title(group_title(group))
            names(axes, list(labels(cells["technique"]).values()))
            for place, cell in enumerate(lines_of(cells)):
                _cell(axes, place, cell, look[cell.technique])
            axes.set_xlabel(metric_title(results.metric, results.higher_is_better))
            axes.margins(x=0.08)
        return figure

    def caption(self, data: pd.DataFrame, results: StudyResults) -> str:
        seeds = sorted({len(values) for values in data["seeds"] if values})
        count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        text = (f"{metric_title(results.metric, results.higher_is_better)}: mean over the "
                f"finished seeds (n = {count}), thin marks are single seeds. Filled: the best of "
                "its backbone and data set and all that are not significantly worse, as bold in "
                "the table.")
        if data["high"].notna().any():
            text += " Bars: the table's 95% interval."
        if (data["note"] != "").any():
            text += " Incomplete: some seeds are missing or failed; not compared."
        return text


def _cell(axes: Axes, place: int, cell: Any, look: Style) -> None:
    if not math.isfinite(cell.mean):
        axes.text(0.02, place, shorten(cell.note or "no value", 60), color="#555555", fontsize=8,
                  va="center", transform=axes.get_yaxis_transform())
        return
    axes.plot(cell.seeds, [place] * len(cell.seeds), "|", color="#555555", markersize=7, zorder=3)
    bar = [[cell.mean - cell.low], [cell.high - cell.mean]] if math.isfinite(cell.high) else None
    axes.errorbar([cell.mean], [place], xerr=bar, fmt=look.marker, color=look.colour, capsize=3,
                  markerfacecolor=look.colour if cell.stands else "white", markersize=7)
    if cell.note:
        axes.annotate(" incomplete", (cell.mean, place), xytext=(6, 6), fontsize=7,
                      textcoords="offset points", color="#555555")
