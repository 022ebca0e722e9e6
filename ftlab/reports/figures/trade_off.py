"""The metric against parameters, time and memory, with the Pareto front."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ftlab.reports.colours import styles
from ftlab.reports.figures import matplotlib_axes
from ftlab.reports.figures.base import Drawing
from ftlab.reports.figures.frames import lines_of, parts
from ftlab.reports.figures.labels import (
    MEMORY,
    TIME,
    TRAINABLE,
    Cost,
    group_title,
    metric_title,
    scale,
)
from ftlab.reports.figures.matplotlib_axes import canvas, legend, spread
from ftlab.reports.pareto_front import pareto_front
from ftlab.reports.study_results import StudyResults
from ftlab.statistics.seed_summary import summarise

_FRONT = {"color": "#333333", "linestyle": "--", "linewidth": 1.0}


class TradeOff(Drawing):
    """Means over seeds; a technique on the front is beaten by no other in one without the other."""

    name: ClassVar[str] = "trade_off"
    title: ClassVar[str] = "Score against cost"
    order: ClassVar[int] = 20

    def data(self, results: StudyResults) -> pd.DataFrame | None:
        """A line a complete cell and cost: mean score and its interval, mean cost, `front`."""
        lines = []
        for group in results.groups:
            for cost in (TRAINABLE, TIME, MEMORY):
                points = _points(results, group, cost)
                if len(points) < 2:
                    continue
                best = set(pareto_front([(point["mean"], point["cost"]) for point in points],
                                        (results.higher_is_better, False)))
                lines += [point | {"front": n in best} for n, point in enumerate(points)]
        return pd.DataFrame(lines) if lines else None

    def draw(self, data: pd.DataFrame, results: StudyResults) -> Figure:
        panels = parts(data, "group", "of")
        figure, all_axes = canvas(_rows(panels), data["of"].nunique(), 3.9, 3.3)
        look = styles(results.techniques)
        for axes, ((group, of), points) in zip(all_axes, panels, strict=True):
            axes.set_title(group_title(group))
            title, size = _unit(of, data)
            xs = (points["cost"] / size).tolist()
            if spread(xs):
                matplotlib_axes.logarithmic(axes, xs)
            else:
                most = max(xs) or 1.0
                axes.set_xlim(-0.04 * most if min(xs) == 0 else 0, 1.08 * most)
            _front(axes, points, size)
            for x, point in zip(xs, lines_of(points), strict=True):
                style = look[point.technique]
                ends = [[point.mean - point.low], [point.high - point.mean]]
                axes.errorbar([x], [point.mean], yerr=ends if math.isfinite(point.high) else None,
                              fmt=style.marker, color=style.colour, markersize=7, capsize=3,
                              elinewidth=1, markerfacecolor=style.colour if point.front else "white")
            axes.margins(x=0.08, y=0.08)
            axes.set_xlabel(title)
            axes.set_ylabel(metric_title(results.metric, results.higher_is_better))
        shown = set(data["technique"])
        legend(figure, {name: style for name, style in look.items() if name in shown},
               more={"Pareto front": Line2D([], [], **_FRONT)})  # type: ignore[arg-type]
        return figure

    def caption(self, data: pd.DataFrame, results: StudyResults) -> str:
        counts = sorted(set(data["n"]))
        n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        bars = ", bars are its 95% interval" if data["high"].notna().any() else ""
        return (f"Mean {metric_title(results.metric, results.higher_is_better)} over seeds "
                f"(n = {n}){bars}, against the mean cost. Filled and on the dashed line: the "
                "Pareto front, techniques that no other beats in one without being worse in the "
                "other; the line keeps the score that a cost allows. Incomplete cells are left out.")


def _rows(panels: Sequence[tuple[Any, pd.DataFrame]]) -> list[int]:
    """How many panels each group has."""
    return list(Counter(group for (group, _), _ in panels).values())


def _points(results: StudyResults, group: tuple[str, str], cost: Cost) -> list[dict[str, Any]]:
    by, points = scale(results.metric), []
    for row in results.rows:
        if row.group != group or row.note or not math.isfinite(row.summary.mean):
            continue
        paid = list(results.values(row.key, cost.metric).values())
        if not paid or (cost.of_fit and row.trainable == 0):
            continue
        points.append({
            "group": group, "of": cost.metric, "technique": row.key.technique,
            "mean": by * row.summary.mean, "low": by * row.summary.ci_low,
            "high": by * row.summary.ci_high, "n": row.summary.n, "cost": summarise(paid).mean})
    return points


def _unit(of: str, data: pd.DataFrame) -> tuple[str, float]:
    (cost,) = (cost for cost in (TRAINABLE, TIME, MEMORY) if cost.metric == of)
    return cost.unit(data.loc[data["of"] == of, "cost"])


def _front(axes: Axes, points: pd.DataFrame, size: float) -> None:
    best = points[points["front"]].sort_values(["cost", "mean"])
    xs = [*(best["cost"] / size), points["cost"].max() / size]
    ys = [*best["mean"], best["mean"].iloc[-1]]
    axes.plot(xs, ys, drawstyle="steps-post", zorder=1, **_FRONT)  # type: ignore[arg-type]
