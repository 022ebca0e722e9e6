"""The new score against what is retained of an earlier data set: who learns without forgetting?"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ftlab.reports.colours import Style, styles
from ftlab.reports.figures.base import Drawing
from ftlab.reports.figures.frames import lines_of, parts
from ftlab.reports.figures.labels import group_title, metric_title, scale
from ftlab.reports.figures.matplotlib_axes import canvas, legend
from ftlab.reports.study_results import StudyResults
from ftlab.statistics.seed_summary import Summary, summarise

_CHANGE = re.compile(r"retain\.([^/]+)/(linear|fixed|output)")
_KINDS: Mapping[str, str] = {
    "linear": "score of a probe fitted anew", "fixed": "score of the old probe",
    "output": "loss of the output layer (less is better)"}


class PlasticityStability(Drawing):
    """A point a technique: its score on the new data, and the change of what it could do before."""

    name: ClassVar[str] = "plasticity_stability"
    title: ClassVar[str] = "What is learned against what is retained"
    order: ClassVar[int] = 47

    def data(self, results: StudyResults) -> pd.DataFrame | None:
        """A line a complete cell, retained data set and kind: means and intervals over seeds."""
        by, lines = scale(results.metric), []
        for row in results.rows:
            if row.note or not math.isfinite(row.summary.mean):
                continue
            names = {name for run in results.runs(row.key) for name in run.metrics}
            for name in sorted(names, key=_place):
                if (found := _CHANGE.fullmatch(name)) is None:
                    continue
                kept = summarise(results.values(row.key, name).values())
                lines.append({
                    "group": row.group, "technique": row.key.technique, "of": found[1],
                    "kind": found[2], "n": row.summary.n, **_ends("new", row.summary, by),
                    **_ends("kept", kept, 1)})
        return pd.DataFrame(lines) if lines else None

    def draw(self, data: pd.DataFrame, results: StudyResults) -> Figure:
        panels = parts(data, "group", "of", "kind")
        counts = data.drop_duplicates(["group", "of", "kind"]).groupby("group", sort=False).size()
        figure, all_axes = canvas(counts.tolist(), 2, 4.6, 3.6)
        look = styles(results.techniques)
        for axes, ((group, of, kind), points) in zip(all_axes, panels, strict=True):
            axes.set_title(group_title(group))
            axes.axvline(0, color="#555555", linestyle=":", linewidth=1, zorder=1)
            for point in lines_of(points):
                _point(axes, point, look[point.technique])
            axes.set_xlabel(f"{of}: change of the {_KINDS[kind]}")
            axes.set_ylabel(metric_title(results.metric, results.higher_is_better))
            axes.margins(0.1)
        shown = set(data["technique"])
        legend(figure, {name: style for name, style in look.items() if name in shown})
        return figure

    def caption(self, data: pd.DataFrame, results: StudyResults) -> str:
        seeds = sorted(set(data["n"]))
        n = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        return (f"Mean {metric_title(results.metric, results.higher_is_better)} over seeds (n = {n}) "
                "against what of an earlier data set changes by the fit, after less before; bars are "
                "95% intervals. On the dotted line nothing is forgotten, as with every frozen "
                "backbone. A probe fitted anew tells what information the features still hold, the "
                "old probe whether what stood on the old features still works on the new ones.")


def _place(name: str) -> tuple[str, int]:
    """By data set, then as `_KINDS` are ordered."""
    found = _CHANGE.fullmatch(name)
    return (name, 0) if found is None else (found[1], [*_KINDS].index(found[2]))


def _ends(name: str, summary: Summary, by: int) -> dict[str, float]:
    return {name: by * summary.mean, f"{name}_low": by * summary.ci_low,
            f"{name}_high": by * summary.ci_high}


def _point(axes: Axes, point: Any, look: Style) -> None:
    def bar(value: float, low: float, high: float) -> Any:
        return [[value - low], [high - value]] if math.isfinite(high) else None

    axes.errorbar([point.kept], [point.new], xerr=bar(point.kept, point.kept_low, point.kept_high),
                  yerr=bar(point.new, point.new_low, point.new_high), fmt=look.marker,
                  color=look.colour, markersize=6, capsize=2, elinewidth=1)
