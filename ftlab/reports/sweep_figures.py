"""The figures of a sweep: the budget curve, and the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from ftlab.reports.budget_table import columns
from ftlab.reports.colours import Style, styles
from ftlab.reports.pareto_front import Point
from ftlab.reports.picture import grid, plain, png
from ftlab.reports.trial_scores import CellTrials
from ftlab.tracking.metric_range import is_percent
from ftlab.tracking.mlflow_values import shorten

_Styles = Mapping[str, Style]


def draw_budget(rows: Sequence[CellTrials], higher_is_better: bool) -> bytes | None:
    """Expected best score against trials, with a band from 5% to 95%; one axes a group.

    Returns:
        A PNG; None where no trial gave a score.
    """
    shown = [row for row in rows if row.scored]
    if not shown:
        return None
    look = styles(row.key.technique for row in rows)
    groups = [(name, list(members)) for name, members in groupby(shown, key=lambda r: r.group)]
    with plain():
        figure, all_axes = grid(len(groups), height=4.4)
        for axes, ((backbone, dataset), members) in zip(all_axes, groups, strict=True):
            axes.set_title(shorten(f"{dataset} from {backbone}", 60), parse_math=False, fontsize=10)
            _curves(axes, members, look)
            _budget_axes(axes, columns(rows), members[0].objectives[0], higher_is_better)
        _legend(figure, all_axes)
        return png(figure)


def _curves(axes: Axes, rows: Sequence[CellTrials], look: _Styles) -> None:
    metric = rows[0].objectives[0]
    scale = 100 if is_percent(metric) else 1
    most = max(len(row.curve) for row in rows)
    for row in rows:
        colour, line, marker = look[row.key.technique]
        reached = [(k, best) for k in range(1, most + 1) if (best := row.after(k)) is not None]
        banded = [(k, b) for k, b in reached if math.isfinite(b.low) and math.isfinite(b.high)]
        ends = [[scale * end for end in (b.low, b.high)] for _, b in banded]
        axes.fill_between([k for k, _ in banded], [low for low, _ in ends],
                          [high for _, high in ends], color=colour, alpha=0.1, linewidth=0)
        for end in (0, 1):  # where bands overlap, their edges still tell whose they are
            axes.plot([k for k, _ in banded], [both[end] for both in ends], color=colour,
                      linestyle=line, linewidth=0.6, alpha=0.5, label="_band")
        known = [(k, scale * b.expected) for k, b in reached if math.isfinite(b.expected)]
        axes.plot(
            [k for k, _ in known], [value for _, value in known], color=colour, linestyle=line,
            linewidth=1.8, marker=marker, markersize=3.5 if most <= 32 else 0,
            label=_label(row.key.technique))


def _budget_axes(axes: Axes, ticks: Sequence[int], metric: str, higher_is_better: bool) -> None:
    if len(ticks) > 2:  # the first trials matter most, so they get the room
        axes.set_xscale("log", base=2)
    while len(ticks) > 2 and ticks[-1] < 1.3 * ticks[-2]:  # the labels would overlap
        ticks = [*ticks[:-2], ticks[-1]]
    axes.set_xticks(ticks, [str(k) for k in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("trials spent")
    unit = ", %" if is_percent(metric) else ""
    better = "" if higher_is_better else "\nless is better"
    axes.set_ylabel(f"expected best {shorten(metric, 30)}{unit}\n(band: 5 to 95% of orders){better}",
                    parse_math=False)
    axes.grid(alpha=0.3)


def draw_front(
    rows: Sequence[CellTrials], found: Sequence[Point], objectives: Sequence[str],
    higher_is_better: Sequence[bool],
) -> bytes | None:
    """The first objective against each other one: all complete trials, and the fronts.

    Trials on the front of their technique are filled; a line steps along the front over all.
    With three objectives or more a front is no line, and those on the front over all get a ring.

    Returns:
        A PNG; None where no trial completed.
    """
    if not found:
        return None
    look = styles(row.key.technique for row in rows)
    groups = [(name, list(members)) for name, members in groupby(found, key=lambda p: p.group)]
    pairs = [(group, other) for group in groups for other in range(1, len(objectives))]
    with plain():
        figure, all_axes = grid(len(pairs), height=4.4)
        for axes, (((backbone, dataset), members), other) in zip(all_axes, pairs, strict=True):
            axes.set_title(shorten(f"{dataset} from {backbone}", 60), parse_math=False, fontsize=10)
            _fronts(axes, members, other, objectives, higher_is_better, look)
            _front_axes(axes, members, other, objectives, higher_is_better)
        _legend(figure, all_axes)
        return png(figure)


def _fronts(axes: Axes, found: Sequence[Point], other: int, objectives: Sequence[str],
            higher_is_better: Sequence[bool], look: _Styles) -> None:
    x_scale, y_scale = (100 if is_percent(objectives[n]) else 1 for n in (other, 0))

    def at(points: Sequence[Point]) -> tuple[list[float], list[float]]:
        ordered = sorted(points, key=lambda p: (p.values[other], p.values[0]))
        return ([x_scale * p.values[other] for p in ordered],
                [y_scale * p.values[0] for p in ordered])

    overall = [point for point in found if point.overall]
    if len(objectives) == 2:
        # Between two trials, and beyond the last, the front keeps the score that the cost allows.
        xs, ys = at(overall)
        far = [x_scale * point.values[other] for point in found]
        if higher_is_better[other]:
            xs, ys, step = [min(far), *xs], [ys[0], *ys], "steps-pre"
        else:
            xs, ys, step = [*xs, max(far)], [*ys, ys[-1]], "steps-post"
        axes.plot(xs, ys, color="black", linestyle="--", linewidth=1, drawstyle=step,
                  label="front over all", zorder=1)
    else:
        axes.plot(*at(overall), "o", color="none", markeredgecolor="black", markersize=11,
                  label="front over all")
    for technique, (colour, _, marker) in look.items():
        own = [point for point in found if point.key.technique == technique]
        if not own:
            continue
        axes.plot(*at([p for p in own if not p.leads]), marker, color="none",
                  markeredgecolor=colour, markersize=5, alpha=0.6)
        axes.plot(*at([p for p in own if p.leads]), marker, color=colour, markersize=7,
                  label=_label(technique))


def _front_axes(axes: Axes, found: Sequence[Point], other: int, objectives: Sequence[str],
                higher_is_better: Sequence[bool]) -> None:
    name = objectives[other]
    values = [point.values[other] for point in found]
    if min(values) > 0 and max(values) > 20 * min(values):
        axes.set_xscale("log")
    axes.margins(x=0.1, y=0.1)

    def title(n: int) -> str:
        better = "more" if higher_is_better[n] else "less"
        return f"{shorten(objectives[n], 40)}{', %' * is_percent(objectives[n])} ({better} is better)"

    axes.set_xlabel(title(objectives.index(name)), parse_math=False)
    axes.set_ylabel(title(0), parse_math=False)
    axes.grid(alpha=0.3)


def _legend(figure: Figure, all_axes: Sequence[Axes]) -> None:
    """One for all axes, below them."""
    found: dict[str, Artist] = {}
    for axes in all_axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    legend = figure.legend(
        list(found.values()), list(found), loc="outside lower center", frameon=False, fontsize=9,
        ncols=min(len(found), 4 * min(len(all_axes), 3)))
    for text in legend.get_texts():
        text.set_parse_math(False)


def _label(technique: str) -> str:
    """As the legend shows it; no name begins with `_`, which matplotlib would leave out."""
    return shorten(technique, 30)
