"""The figures of a sweep: the budget curve, and the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ftlab.reports.colours import Style, styles
from ftlab.reports.figures.curve_panels import curve_points, draw_curves
from ftlab.reports.figures.labels import group_title
from ftlab.reports.figures.matplotlib_axes import canvas, legend, paper, png
from ftlab.reports.pareto_front import Point
from ftlab.reports.trial_scores import CellTrials
from ftlab.tracking.metric_range import is_percent
from ftlab.tracking.mlflow_values import shorten

_LINE: dict[str, Any] = {"color": "black", "linestyle": "--", "linewidth": 1}
_RING: dict[str, Any] = {"marker": "o", "color": "none", "markeredgecolor": "black",
                         "markersize": 11}
_Styles = Mapping[str, Style]


def draw_budget(rows: Sequence[CellTrials], higher_is_better: bool) -> bytes | None:
    """Expected best score against trials, with its band where it has one; one axes per group.

    Returns:
        A PNG; None where no trial gave a score.
    """
    points = curve_points(rows, rows[0].objectives[0])
    if not points:
        return None
    with paper():
        return png(draw_curves(pd.DataFrame(points), styles(row.key.technique for row in rows),
                               lambda _: higher_is_better))


def draw_front(
    rows: Sequence[CellTrials], points_of_front: Sequence[Point], objectives: Sequence[str],
    higher_is_better: Sequence[bool],
) -> bytes | None:
    """The first objective against each other one: all complete trials, and the fronts.

    Trials on the front of their technique are filled; a line steps along the front over all.
    With three objectives or more a front is no line, and those on the front over all get a ring.

    Returns:
        A PNG; None where no trial completed.
    """
    if not points_of_front:
        return None
    look = styles(row.key.technique for row in rows)
    groups = [(name, list(members)) for name, members in groupby(points_of_front, key=lambda p: p.group)]
    pairs = [(group, other) for group in groups for other in range(1, len(objectives))]
    with paper():
        figure, all_axes = canvas([len(pairs)], 3, 5.6, 4.4)
        for axes, ((group, members), other) in zip(all_axes, pairs, strict=True):
            axes.set_title(group_title(group))
            _fronts(axes, members, other, objectives, higher_is_better, look)
            _front_axes(axes, members, other, objectives, higher_is_better)
        shown = {point.key.technique for point in points_of_front}
        front = _LINE if len(objectives) == 2 else _RING
        legend(figure, {name: style for name, style in look.items() if name in shown},
               more={"front over all": Line2D([], [], **front)})
        return png(figure)


def _fronts(axes: Axes, points_of_front: Sequence[Point], other: int, objectives: Sequence[str],
            higher_is_better: Sequence[bool], look: _Styles) -> None:
    x_scale, y_scale = (100 if is_percent(objectives[n]) else 1 for n in (other, 0))

    def at(points: Sequence[Point]) -> tuple[list[float], list[float]]:
        ordered = sorted(points, key=lambda p: (p.values[other], p.values[0]))
        return ([x_scale * p.values[other] for p in ordered],
                [y_scale * p.values[0] for p in ordered])

    overall = [point for point in points_of_front if point.overall]
    if len(objectives) == 2:
        # Between two trials, and beyond the last, the front keeps the score that the cost allows.
        xs, ys = at(overall)
        far = [x_scale * point.values[other] for point in points_of_front]
        if higher_is_better[other]:
            xs, ys, step = [min(far), *xs], [ys[0], *ys], "steps-pre"
        else:
            xs, ys, step = [*xs, max(far)], [*ys, ys[-1]], "steps-post"
        axes.plot(xs, ys, drawstyle=step, zorder=1, **_LINE)
    else:
        axes.plot(*at(overall), **_RING)
    for technique, (colour, _, marker) in look.items():
        points = [point for point in points_of_front if point.key.technique == technique]
        if not points:
            continue
        axes.plot(*at([p for p in points if not p.leads]), marker, color="none",
                  markeredgecolor=colour, markersize=5, alpha=0.6)
        axes.plot(*at([p for p in points if p.leads]), marker, color=colour, markersize=7,
                  label=technique)


def _front_axes(axes: Axes, points_of_front: Sequence[Point], other: int, objectives: Sequence[str],
                higher_is_better: Sequence[bool]) -> None:
    values = [point.values[other] for point in points_of_front]
    if min(values) > 0 and max(values) > 20 * min(values):
        axes.set_xscale("log")
    axes.margins(x=0.1, y=0.1)

    def title(n: int) -> str:
        better = "more" if higher_is_better[n] else "less"
        return f"{shorten(objectives[n], 40)}{', %' * is_percent(objectives[n])} ({better} is better)"

    axes.set_xlabel(title(other))
    axes.set_ylabel(title(0))

