"""Mean ranks over data sets, and which of them Nemenyi's test does not tell apart."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ftlab.reports.colours import styles
from ftlab.reports.figures.base import Drawing
from ftlab.reports.figures.frames import lines_of, parts
from ftlab.reports.figures.labels import LONGEST, labels, metric_title
from ftlab.reports.figures.matplotlib_axes import canvas, narrow
from ftlab.reports.study_results import StudyResults
from ftlab.statistics.multiple_testing import LEVEL
from ftlab.statistics.ranks import FEWEST, rank
from ftlab.tracking.mlflow_values import shorten

_STEP = 0.32  # inches from one name to the next


class CriticalDifference(Drawing):
    """Demšar (2006), https://jmlr.org/papers/v7/demsar06a.html, one diagram a backbone."""

    name: ClassVar[str] = "critical_difference"
    title: ClassVar[str] = "Ranks over data sets"
    order: ClassVar[int] = 15

    def data(self, results: StudyResults) -> pd.DataFrame | None:
        """A line a backbone and technique, best first.

        `rank`, `last` (place of the last that Nemenyi's test does not separate from it), the
        critical `difference`, p of Friedman's test, how many data sets.
        """
        lines = [line for backbone in dict.fromkeys(name for name, _ in results.groups)
                 for line in _lines(results, backbone)]
        return pd.DataFrame(lines) if lines else None

    def draw(self, data: pd.DataFrame, results: StudyResults) -> Figure:
        panels = parts(data, "backbone")
        most = max(len(lines) for _, lines in panels)
        bars = max(len(_bars(lines)) for _, lines in panels)
        height = 1.3 + _STEP * math.ceil(most / 2) + 0.14 * bars
        figure, all_axes = canvas([len(panels)], 1, 7.5, height)
        if narrow(all_axes[0]):
            figure.set_figheight(figure.get_figheight() + len(panels) * _STEP * most / 2)
        for axes, (backbone, lines) in zip(all_axes, panels, strict=True):
            _diagram(axes, lines, results)
            axes.set_title(_title(str(backbone), lines), pad=8)
        return figure

    def caption(self, data: pd.DataFrame, results: StudyResults) -> str:
        p = data.groupby("backbone", sort=False)["p"].first()
        friedman_p = "; ".join(
            f"{shorten(str(name), 40)}: {_p(value)}" if len(p) > 1 else _p(value)
            for name, value in p.items() if math.isfinite(value))
        friedman = f" Friedman's test that all rank alike: {friedman_p}." if friedman_p else ""
        sets = sorted(set(data["data_sets"]))
        return (f"Mean rank by {metric_title(results.metric, results.higher_is_better)} over "
                f"n = {' or '.join(map(str, sets))} data sets, 1 is the best, equals share their "
                "rank. A thick bar joins techniques whose ranks Nemenyi's test does not tell apart "
                f"(level {LEVEL}); CD is its critical difference.{friedman} Techniques that some "
                "data set lacks are left out.")


def _lines(results: StudyResults, backbone: str) -> list[dict[str, Any]]:
    scores: dict[str, dict[str, float]] = {}
    levels = results.levels.get("datasets", {})  # of one data set, so not independent
    for row in results.rows:
        if row.key.backbone == backbone and row.key.dataset not in levels:
            whole = not row.note and math.isfinite(row.summary.mean)
            scores.setdefault(row.key.dataset, {})[row.key.technique] = (
                row.summary.mean if whole else math.nan)
    ranked = rank(scores, results.higher_is_better) if len(scores) >= FEWEST else None
    if ranked is None:
        return []
    ordered = sorted(ranked.ranks, key=lambda name: ranked.ranks[name])
    lines = []
    for place, name in enumerate(ordered):
        last = place
        while last + 1 < len(ordered) and ranked.pairs[name][ordered[last + 1]] > LEVEL:
            last += 1
        lines.append({"backbone": backbone, "technique": name, "rank": ranked.ranks[name],
                      "last": last, "difference": ranked.difference, "p": ranked.p,
                      "data_sets": ranked.data_sets})
    return lines


def _bars(lines: pd.DataFrame) -> list[tuple[int, int]]:
    """First and last place of each largest set that the test does not separate, of two or more."""
    bars: list[tuple[int, int]] = []
    for first, last in enumerate(lines["last"].astype(int)):
        if last > first and (not bars or last > bars[-1][1]):
            bars.append((first, int(last)))
    return bars


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"


def _title(backbone: str, lines: pd.DataFrame) -> str:
    return shorten(f"{lines['data_sets'].iloc[0]} data sets from {backbone}", 60)


def _diagram(axes: Axes, lines: pd.DataFrame, results: StudyResults) -> None:
    """The axis of ranks on top, the best half named on the left where there is room."""
    look, far = styles(results.techniques), len(lines)
    called = labels(lines["technique"], 20 if narrow(axes) else LONGEST)
    bars = _bars(lines)
    begin = 0.14 * len(bars) + 0.2  # inches below the axis; all heights are inches
    half = math.ceil(far / 2) if not narrow(axes) else 0
    axes.set_ylim(begin + _STEP * (half or far), -0.55)
    axes.set_xlim(1 - 0.02 * far, far + 0.02 * far)
    axes.xaxis.tick_top()
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.spines["top"].set_visible(True)
    axes.spines["top"].set_position(("data", 0))
    axes.set_xticks(range(1, far + 1, max(1, far // 12)))
    axes.set_yticks([])
    axes.grid(visible=False)
    for n, (first, last) in enumerate(bars):
        xs = [lines["rank"].iloc[first] - 0.01 * far, lines["rank"].iloc[last] + 0.01 * far]
        axes.plot(xs, [0.14 + 0.14 * n] * 2, color="#333333", linewidth=3.5,
                  solid_capstyle="butt")
    for place, line in enumerate(lines_of(lines)):
        left = place < half
        depth = begin + _STEP * (place if left else far - 1 - place) + 0.1
        end = 1 - 0.02 * far if left else far + 0.02 * far
        style = look[str(line.technique)]
        axes.plot([line.rank, line.rank, end], [0, depth, depth], color="#666666", linewidth=0.9)
        axes.plot([line.rank], [0], marker=style.marker, color=style.colour, markersize=7,
                  clip_on=False, zorder=4)
        axes.annotate(f"{called[str(line.technique)]}  ({line.rank:.3g})", (end, depth),
                      xytext=(-4 if left else 4, 0), textcoords="offset points", va="center",
                      ha="right" if left else "left", annotation_clip=False)
    difference = float(lines["difference"].iloc[0])
    reach = min(difference, far - 1.0)
    axes.plot([1, 1 + reach], [-0.42, -0.42], color="black", linewidth=1.2, clip_on=False)
    beyond = "" if difference <= reach else ", longer than the axis"
    axes.annotate(f"CD = {difference:.3g}{beyond}", (1 + reach / 2 if half else 1, -0.42), xytext=(0, 3),
                  textcoords="offset points", ha="center" if half else "left", va="bottom", fontsize=8,
                  annotation_clip=False)
