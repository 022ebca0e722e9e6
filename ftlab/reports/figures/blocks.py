"""Gradients and updates of each block, from the input to the head."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from ftlab.reports.colours import Style, styles
from ftlab.reports.figures.base import Drawing
from ftlab.reports.figures.frames import parts
from ftlab.reports.figures.labels import group_title, labels, short
from ftlab.reports.figures.matplotlib_axes import canvas, legend
from ftlab.reports.study_results import StudyResults
from ftlab.tracking.records import RunRecord

PANELS = {"grad_norm": "gradient norm", "update_ratio": "update / weight of a step",
          "grad_zeros": "exact zeros in the gradient, %"}
HEALTHY = 1e-3
"""An update's usual size beside the weights."""
MOST_NAMES = 14
"""Blocks along an axis up to which each is named."""


class Blocks(Drawing):
    """Measures of each block that trains, in the last epoch of each run."""

    name: ClassVar[str] = "blocks"
    title: ClassVar[str] = "Gradients and updates by block"
    order: ClassVar[int] = 35

    def data(self, results: StudyResults) -> pd.DataFrame | None:
        """A line a group, measure, technique and block: place from 0, mean, low, high over seeds, n.

        Blocks in which nothing trains have none. A seed whose number is 0 or not finite is left out
        of norms and ratios, which have a logarithmic axis.
        """
        found = [line for row in results.rows for run in results.runs(row.key)
                 for line in _lines(run, row.group, row.key.technique)]
        if not found:
            return None
        by = ["group", "of", "technique", "place", "block"]
        data = (pd.DataFrame(found).groupby(by, sort=False)
                .agg(mean=("value", "mean"), low=("value", "min"), high=("value", "max"),
                     n=("value", "size")).reset_index())
        return data.sort_values(["place"], kind="stable").sort_values(
            ["group", "of"], kind="stable", key=lambda column: column.map(
                {value: n for n, value in enumerate([*results.groups, *PANELS])}))

    def draw(self, data: pd.DataFrame, results: StudyResults) -> Figure:
        panels = parts(data, "group", "of")
        counts = data.groupby("group", sort=False)["of"].nunique().tolist()
        figure, all_axes = canvas(counts, 3, 4.3, 3.4)
        look = styles(results.techniques)
        for axes, ((group, of), lines) in zip(all_axes, panels, strict=True):
            axes.set_title(group_title(group))
            for technique, points in parts(lines, "technique"):
                _curve(axes, points, look[str(technique)])
            axes.set_ylabel(PANELS[str(of)])
            _name(axes, lines)
            if of == "grad_zeros":
                axes.set_ylim(-3, 103)
            else:
                _logarithmic(axes, lines["high"].max() / lines["low"].min())
            if of == "update_ratio":
                axes.axhline(HEALTHY, color="black", linewidth=0.8, linestyle=":")
        shown = set(data["technique"])
        legend(figure, {name: style for name, style in look.items() if name in shown}, lines=True)
        return figure

    def caption(self, data: pd.DataFrame, results: StudyResults) -> str:
        counts = sorted(set(data["n"]))
        n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        band = "; bands reach from the lowest to the highest seed" if counts[-1] > 1 else ""
        return (f"Mean over seeds (n = {n}){band}, of the last epoch's logged steps, from the input "
                "(left) to the head. Gradients are those before clipping. An update is the norm of what "
                f"a step changes over that of what it changes; near {HEALTHY:g} (dotted) is usual.")


def _lines(run: RunRecord, group: tuple[str, str], technique: str) -> list[dict[str, Any]]:
    lines = []
    for of in PANELS:
        for place, block in enumerate(run.blocks):
            value = run.metrics.get(f"train/{of}/{block}", math.nan)
            if of == "grad_zeros":
                value *= 100
            if math.isfinite(value) and (value > 0 or of == "grad_zeros"):
                lines.append({"group": group, "of": of, "technique": technique, "place": place,
                              "block": block, "value": value})
    return lines


def _curve(axes: Axes, points: pd.DataFrame, style: Style) -> None:
    places = points["place"].tolist()
    if points["n"].max() > 1:
        axes.fill_between(places, points["low"], points["high"], color=style.colour, alpha=0.13,
                          linewidth=0)
    axes.plot(places, points["mean"], color=style.colour, linestyle=style.line, linewidth=1.4,
              marker=style.marker, markersize=3.5)


def _name(axes: Axes, lines: pd.DataFrame) -> None:
    """Name the blocks along the axis, every so many where they are many, and the last."""
    blocks = dict(sorted(zip(lines["place"].tolist(), lines["block"].tolist(), strict=True)))
    places = list(blocks)
    every = math.ceil(len(places) / MOST_NAMES)
    kept = [*places[:-1:every], places[-1]]
    if len(kept) > 2 and every > 1 and kept[-1] - kept[-2] < every:
        del kept[-2]
    axes.set_xticks(kept, list(labels((blocks[place] for place in kept), 18).values()),
                    rotation=90)  # slanted ones would lie on each other
    axes.grid(visible=False, axis="x")


def _logarithmic(axes: Axes, spread: float) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(
        LogLocator(subs=(1.0, 2.0, 5.0) if spread < 30 else (1.0,), numticks=6))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
