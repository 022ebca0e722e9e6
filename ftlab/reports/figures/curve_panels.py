"""Budget curves as numbers and as axes, for a study's figures and for a sweep's report."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from ftlab.reports.colours import Style
from ftlab.reports.figures.frames import parts
from ftlab.reports.figures.labels import group_title, metric_title, scale
from ftlab.reports.figures.matplotlib_axes import canvas, legend
from ftlab.reports.trial_scores import CellTrials
from ftlab.tracking.mlflow_values import shorten


def curve_points(rows: Sequence[CellTrials], objective: str, sweep: str = "") -> list[dict[str, Any]]:
    """A line per cell with a score and k: expected, low, high; and the objective.

    Args:
        rows: of all cells.
        objective: a metric's name; shares come in percent.
        sweep: its name.
    """
    by, points = scale(objective), []
    for row in rows:
        most = max(len(other.curve) for other in rows if other.group == row.group)
        for k in range(1, most + 1) if row.scored else ():
            if (best := row.after(k)) is not None:
                low, expected, high = (by * value if math.isfinite(value) else math.nan
                                       for value in (best.low, best.expected, best.high))
                points.append({"sweep": sweep, "group": row.group, "technique": row.key.technique,
                               "k": k, "low": low, "expected": expected, "high": high,
                               "objective": objective, "trials": len(row.ended)})
    return points


def draw_curves(data: pd.DataFrame, looks: Mapping[str, Style],
                higher_is_better: Callable[[str], bool]) -> Figure:
    """Expected best score against trials, with its band where it has one; axes per sweep and group.

    Args:
        data: from `curve_points`.
        looks: by technique.
        higher_is_better: of an objective.
    """
    panels = parts(data, "sweep", "group")
    figure, all_axes = canvas([len(panels)], 3, 5.0 if len(panels) > 1 else 6.4, 3.6)
    for axes, ((sweep, group), lines) in zip(all_axes, panels, strict=True):
        below = f"\nsweep {shorten(sweep, 40)}" if sweep else ""
        axes.set_title(f"{group_title(group)}{below}")
        for technique, points in parts(lines, "technique"):
            _curve(axes, points, looks[str(technique)])
        _trials(axes, int(lines["k"].max()))
        objective = str(lines["objective"].iloc[0])
        axes.set_ylabel(f"expected best {metric_title(objective, higher_is_better(objective))}")
    shown = set(data["technique"])
    legend(figure, {name: style for name, style in looks.items() if name in shown}, lines=True)
    return figure


def _curve(axes: Axes, points: pd.DataFrame, style: Style) -> None:
    banded = points[points["low"].notna() & points["high"].notna()]
    axes.fill_between(banded["k"], banded["low"], banded["high"], color=style.colour, alpha=0.12,
                      linewidth=0)
    certain = points[points["expected"].notna()]
    axes.plot(certain["k"], certain["expected"], color=style.colour, linestyle=style.line,
              linewidth=1.6, marker=style.marker if len(certain) <= 32 else None, markersize=4.5,
              label=str(points["technique"].iloc[0]))


def _ticks(most: int) -> list[int]:
    """Powers of two, and the last trial."""
    ticks = [2**power for power in range(most.bit_length()) if 2**power <= most]
    return ticks if ticks[-1] == most else [*(tick for tick in ticks if 1.3 * tick < most), most]


def _trials(axes: Axes, most: int) -> None:
    ticks = _ticks(most)
    if most > 2:  # the first trials matter most, so they get the room
        axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("trials spent")
