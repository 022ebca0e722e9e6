"""Scores over what a study varies: the number of examples, a rank, a size."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from ftlab.reports.colours import Style, styles
from ftlab.reports.csv_files import to_csv
from ftlab.reports.figures.base import Drawing
from ftlab.reports.figures.frames import parts
from ftlab.reports.figures.labels import group_title, metric_title, scale, short
from ftlab.reports.figures.matplotlib_axes import canvas, legend
from ftlab.reports.levels import EXAMPLES, curves
from ftlab.reports.study_results import StudyResults
from ftlab.statistics.sample_efficiency import area, needed

_MOST = 12  # panels
_BELOW = ("backbone", "dataset", "over", "curve")
_FIELDS = (*_BELOW, "at", "mean", "std", "n", "ci_low", "ci_high")


class Levels(Drawing):
    """A line a technique over the levels, on a logarithmic axis where they span a decade."""

    name: ClassVar[str] = "levels"
    title: ClassVar[str] = "Over levels"
    order: ClassVar[int] = 5
    tables: ClassVar[tuple[str, ...]] = ("levels.csv", "examples_needed.csv")
    whole: ClassVar[bool] = True

    def data(self, results: StudyResults) -> pd.DataFrame | None:
        """A line a panel, curve and level: mean and interval over draws or seeds, n."""
        by = scale(results.named(results.metric))
        lines = [{"panel": curve.panel, "curve": curve.name, "at": at,
                  "mean": by * score.mean, "low": by * score.ci_low, "high": by * score.ci_high,
                  "n": score.n, "draws": curve.draws}
                 for curve in curves(results) for at, score in zip(curve.at, curve.scores, strict=True)]
        return pd.DataFrame(lines) if lines else None

    def draw(self, data: pd.DataFrame, results: StudyResults) -> Figure:
        panels = parts(data, "panel")[:_MOST]
        names = list(dict.fromkeys(data["curve"]))
        known = styles(results.techniques)  # the colours that they have elsewhere
        look = {name: known[name] for name in names} if set(names) <= set(known) else styles(names)
        figure, all_axes = canvas([len(panels)], 2, 5.0 if len(panels) > 1 else 6.4, 3.8)
        for axes, ((backbone, dataset, over), lines) in zip(all_axes, panels, strict=True):
            axes.set_title(group_title((backbone, dataset)))
            for curve, points in parts(lines, "curve"):
                _curve(axes, points, look[str(curve)])
            axes.set_xlabel(over)
            axes.set_ylabel(metric_title(results.named(results.metric), results.higher_is_better))
            _scaled(axes, sorted(set(lines["at"])))
        legend(figure, look, lines=True)
        return figure

    def texts(self, data: pd.DataFrame, results: StudyResults) -> dict[str, str]:
        """The curves, and how many examples each needs for what another reaches with all."""
        found = curves(results)
        lines = [{**dict(zip(_BELOW, (*curve.panel, curve.name), strict=True)), "at": at, "mean": score.mean,
                  "std": score.std, "n": score.n, "ci_low": score.ci_low, "ci_high": score.ci_high}
                 for curve in found for at, score in zip(curve.at, curve.scores, strict=True)]
        made = {self.tables[0]: to_csv(_FIELDS, lines)}
        counted = [curve for curve in found if curve.panel[2] == EXAMPLES]
        if not counted:
            return made
        names = list(dict.fromkeys(curve.name for curve in counted))
        table: list[dict[str, Any]] = []
        for curve in counted:
            targets = {other.name: other.means[-1] for other in counted if other.panel == curve.panel}
            table.append({
                **dict(zip(_BELOW, (*curve.panel, curve.name), strict=True)),
                "area": area(curve.at, curve.means),
                **{f"for {name}": needed(curve.at, curve.means, target, results.higher_is_better)
                   for name, target in targets.items()}})
        return made | {self.tables[1]: to_csv(
            (*_BELOW, "area", *(f"for {name}" for name in names)), table)}

    def caption(self, data: pd.DataFrame, results: StudyResults) -> str:
        over = ("draws of the examples, each the mean over its seeds; over seeds where there is one draw"
                if data["draws"].max() > 1 else "seeds")
        counts = sorted(set(data["n"]))
        n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        text = (f"Mean over {over} (n = {n}); the band is its 95% interval. Levels of which a run is "
                "missing are left out.")
        if (panels := data["panel"].nunique()) > _MOST:
            text += f" The first {_MOST} of {panels} panels; levels.csv has all."
        if (data["panel"].map(lambda panel: panel[2]) == EXAMPLES).any():
            text += (" examples_needed.csv: with how many examples a row's technique reaches what a column's "
                     "reaches with all of them, between levels linear in their logarithm (inf: with more than "
                     "there are; the fewest: with these or fewer), and the area, which is the mean score over "
                     "that logarithm.")
        return text


def _curve(axes: Axes, points: pd.DataFrame, style: Style) -> None:
    banded = points[points["low"].notna() & points["high"].notna()]
    axes.fill_between(banded["at"], banded["low"], banded["high"], color=style.colour, alpha=0.12,
                      linewidth=0)
    axes.plot(points["at"], points["mean"], color=style.colour, linestyle=style.line, linewidth=1.6,
              marker=style.marker, markersize=4.5)


def _scaled(axes: Axes, levels: list[float]) -> None:
    if levels[0] > 0 and levels[-1] >= 8 * levels[0]:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    apart: list[float] = []
    for level in levels:  # ticks at the levels, where there is room for their numbers
        if not apart or axes.get_xscale() != "log" or math.log(level / apart[-1]) > 0.08 * math.log(
                levels[-1] / levels[0]):
            apart.append(level)
    axes.set_xticks(apart, [short(level) for level in apart])
