"""The costs of each technique: bars from zero, points where the axis is logarithmic and has none."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ftlab.reports.colours import styles
from ftlab.reports.figures.base import Drawing
from ftlab.reports.figures.frames import lines_of, parts
from ftlab.reports.figures.labels import COSTS, Cost, group_title, labels, short
from ftlab.reports.figures.matplotlib_axes import (
    SPREAD,
    canvas,
    leftmost,
    logarithmic,
    names,
    spread,
)
from ftlab.reports.study_results import StudyResults
from ftlab.statistics.seed_summary import summarise

_HATCHES = {"o": "", "s": "//", "^": "..", "D": "xx", "v": "\\\\", "P": "++", "X": "oo"}


class Costs(Drawing):
    """Means over finished seeds; a cost that nothing has is left out."""

    name: ClassVar[str] = "costs"
    title: ClassVar[str] = "Costs"
    order: ClassVar[int] = 40

    def data(self, results: StudyResults) -> pd.DataFrame | None:
        """A line a group, cost and technique: mean, low, high over seeds, n; nan where unknown.

        Techniques without a finished run are left out.
        """
        panels = []
        for group in results.groups:
            rows = [row for row in results.rows if row.group == group and results.runs(row.key)]
            for cost in COSTS:
                lines = [_line(results, row, cost) for row in rows]
                if any(math.isfinite(line["mean"]) and line["mean"] > 0 for line in lines):
                    panels += lines
        return pd.DataFrame(panels) if panels else None

    def draw(self, data: pd.DataFrame, results: StudyResults) -> Figure:
        panels = parts(data, "group", "of")
        most = max(len(lines) for _, lines in panels)
        counts = data.groupby("group", sort=False)["of"].nunique().tolist()
        figure, all_axes = canvas(counts, 3, 4.3, 0.95 + 0.24 * most)
        several = len(counts) > 1
        for axes, ((group, of), lines) in zip(all_axes, panels, strict=True):
            title, size = _unit(str(of), data)
            called = labels(lines["technique"]).values()
            names(axes, list(called), shown=leftmost(axes))
            _marks(axes, lines, size, results)
            axes.set_xlabel(title)
            if several:
                axes.set_title(group_title(group))
        if not several:
            figure.suptitle(group_title(data["group"].iloc[0]), fontsize=10)
        return figure

    def caption(self, data: pd.DataFrame, results: StudyResults) -> str:
        measured = data[data["n"] > 0]
        counts = sorted(set(measured["n"]))
        n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        lines = " Lines: lowest to highest seed." if counts[-1] > 1 else ""
        return (f"Mean over the finished seeds (n = {n}).{lines} Axes are logarithmic, with points, where "
                f"the largest is more than {SPREAD} times the smallest. FLOPs are counted over one "
                "batch; -: not measured, or without meaning for what trains nothing.")


def _line(results: StudyResults, row: Any, cost: Cost) -> dict[str, Any]:
    values = list(results.values(row.key, cost.metric).values())
    if cost.of_fit and row.trainable == 0:
        values = []
    n = len(values)
    return {"group": row.group, "of": cost.metric, "technique": row.key.technique, "n": n,
            "mean": summarise(values).mean,
            "low": min(values, default=math.nan), "high": max(values, default=math.nan)}


def _unit(of: str, data: pd.DataFrame) -> tuple[str, float]:
    (cost,) = (cost for cost in COSTS if cost.metric == of)
    return cost.unit(data.loc[data["of"] == of, "mean"])


def _marks(axes: Axes, lines: pd.DataFrame, size: float, results: StudyResults) -> None:
    look = styles(results.techniques)
    means = (lines["mean"] / size).tolist()
    known = [mean for mean in means if math.isfinite(mean) and mean > 0]
    top = max(high for high in lines["high"] / size if math.isfinite(high))
    low = 0.0
    if points := spread(known):
        least = min(value for value in lines["low"] / size if math.isfinite(value) and value > 0)
        low = least / (top / least) ** 0.08
        logarithmic(axes, [low, top])
        axes.set_xlim(low, top * (top / low) ** 0.25)
    else:
        axes.set_xlim(0, 1.22 * top)
    for place, (line, mean) in enumerate(zip(lines_of(lines), means, strict=True)):
        style = look[str(line.technique)]
        if math.isfinite(mean) and mean > 0:
            if points:
                axes.plot([low, mean], [place, place], color="#dddddd", linewidth=1, zorder=1)
                axes.plot([mean], [place], style.marker, color=style.colour, markersize=7)
            else:
                axes.barh(place, mean, height=0.66, color=style.colour, edgecolor="white", linewidth=0,
                          hatch=_HATCHES[style.marker])
            if line.n > 1 and line.high > line.low:
                axes.plot([line.low / size, line.high / size], [place, place], color="black",
                          linewidth=1)
        end = max(line.high / size, low) if math.isfinite(mean) and mean > 0 else low
        axes.annotate(short(mean), (end, place), xytext=(7 if points else 4, 0), textcoords="offset points",
                      va="center", fontsize=8)
