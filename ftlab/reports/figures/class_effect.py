"""Gain or loss of each class, the frequent ones first: whom does an imbalance hurt?"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ftlab.reports.colours import Style, styles
from ftlab.reports.figures.base import Drawing
from ftlab.reports.figures.frames import parts
from ftlab.reports.figures.labels import group_title, labels
from ftlab.reports.figures.matplotlib_axes import canvas, legend, names, narrow
from ftlab.reports.figures.predictions import best, classes, confusions
from ftlab.reports.study_results import StudyResults

_SINGLE = 30  # classes up to which each has its line; beyond, ten bins of equally many classes
_BINS = 10
_MOST = 12  # techniques of a group
_PANELS = ("recall", "f1", "gain")


class ClassEffect(Drawing):
    """Recall, F1, and F1 less that of the technique with the best mean, paired by seed."""

    name: ClassVar[str] = "class_effect"
    title: ClassVar[str] = "Effect on each class"
    order: ClassVar[int] = 50

    def data(self, results: StudyResults) -> pd.DataFrame | None:
        """A line a group, technique and class (or bin of classes), the most frequent first.

        `recall`, `f1` and `gain` in percent, means over seeds; `low`, `high` of the gain over
        seeds; `line` (the class's label), `place`, `reference`, n.
        """
        lines: list[dict[str, Any]] = []
        for group in results.groups:
            names = classes(results, group)
            counts = results.class_counts(group) if names else {}
            if counts:
                lines += _lines(results, group, names, counts)
        return pd.DataFrame(lines) if lines else None

    def draw(self, data: pd.DataFrame, results: StudyResults) -> Figure:
        groups = parts(data, "group")
        lines, most = data["place"].max() + 1, data["technique"].nunique()
        height = 1.2 + lines * max(0.28, 0.06 * most + 0.1)
        figure, all_axes = canvas([3 * len(groups)], 3, 3.9, min(height, 24.0))
        look = styles(results.techniques)
        for n, axes in enumerate(all_axes):
            (group, cells), kind = groups[n // 3], _PANELS[n % 3]
            _panel(axes, cells, kind, look)
            axes.set_title(group_title(group))
            axes.set_xlabel(_axis(kind, cells))
        shown = set(data["technique"])
        legend(figure, {name: style for name, style in look.items() if name in shown})
        return figure

    def caption(self, data: pd.DataFrame, results: StudyResults) -> str:
        seeds = sorted(set(data["n"]))
        n = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        binned = " Classes in bins of equally many, by frequency." if data["binned"].any() else ""
        most = ""
        if len(results.techniques) > _MOST:
            most = f" The {_MOST} techniques with the best means are shown."
        return (f"Test recall and F1 of each class, mean over seeds (n = {n}); in brackets its "
                "training examples and their share, before any resampling. Points: F1 less that of "
                "the technique with the best mean, paired by seed; lines reach from the lowest to "
                f"the highest seed.{binned}{most}")


def _lines(results: StudyResults, group: tuple[str, str], names: list[str],
           counts: dict[str, int]) -> list[dict[str, Any]]:
    rows = best(results, group, _MOST)
    scores = {row.key.technique: {seed: _scores(matrix) for seed, matrix
                                  in confusions(results, row.key, names).items()} for row in rows}
    scores = {name: seeds for name, seeds in scores.items() if seeds}
    sign = 1 if results.higher_is_better else -1
    means = {row.key.technique: sign * row.summary.mean for row in rows
             if row.key.technique in scores and math.isfinite(row.summary.mean)}
    reference = max(means, key=lambda name: means[name]) if means else next(iter(scores))
    bins = _bins(names, counts)
    lines = []
    for name, seeds in scores.items():
        recall, f1 = (_mean([seed_scores[n] for seed_scores in seeds.values()]) for n in (0, 1))
        gains = [seeds[seed][1] - scores[reference][seed][1] for seed in seeds
                 if seed in scores[reference]]
        for place, (line, members) in enumerate(bins):
            gained = [gain for by_class in gains if math.isfinite(gain := _level(by_class[members]))]
            lines.append({
                "group": group, "technique": name, "place": place, "line": line,
                "recall": _level(recall[members]), "f1": _level(f1[members]),
                "gain": _level(np.array(gained)), "low": min(gained, default=math.nan),
                "high": max(gained, default=math.nan), "n": len(seeds), "reference": reference,
                "binned": len(names) > _SINGLE})
    return lines


def _scores(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Recall and F1 of each class in percent, (2, C); nan for one without test examples."""
    hits, true, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    scores = np.full((2, len(counts)), np.nan)
    np.divide(100 * hits, true, out=scores[0], where=true > 0)
    np.divide(200 * hits, true + predicted, out=scores[1], where=true > 0)
    return scores


def _mean(values: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    means: NDArray[np.float64] = np.mean(values, axis=0)
    return means


def _level(values: NDArray[np.float64]) -> float:
    """The mean of what is known; nan where nothing is."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else math.nan


def _bins(every: list[str], counts: dict[str, int]) -> list[tuple[str, list[int]]]:
    """Label and places of each class, the most frequent first; of each bin where they are many."""
    total = sum(counts.values())
    order = sorted(range(len(every)), key=lambda n: -counts.get(every[n], 0))
    if len(every) <= _SINGLE:
        called = labels(every, 18)
        shares = [100 * counts.get(name, 0) / total for name in every]
        return [(f"{called[every[n]]} ({counts.get(every[n], 0):,}, {shares[n]:.3g}%)", [n])
                for n in order]
    bins = []
    for part in np.array_split(order, _BINS):
        sizes = [counts.get(every[n], 0) for n in part]
        span = f"{min(sizes):,}" if min(sizes) == max(sizes) else f"{min(sizes):,} to {max(sizes):,}"
        bins.append((f"{len(part)} classes, {span} each", part.tolist()))
    return bins


def _labels(cells: pd.DataFrame) -> list[str]:
    return cells.drop_duplicates("place").sort_values("place")["line"].tolist()


def _axis(kind: str, cells: pd.DataFrame) -> str:
    reference = cells["reference"].iloc[0]
    return {"recall": "recall, %", "f1": "F1, %",
            "gain": f"F1 less that of {labels([reference], 20)[reference]}, points"}[kind]


def _shifted(cells: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Each technique's cells, with the height `at` of its markers within a line."""
    members = parts(cells, "technique")
    step = 0.6 / max(len(members), 3)
    return [(str(name), points.assign(at=points["place"] + step * (n - (len(members) - 1) / 2)))
            for n, (name, points) in enumerate(members)]


def _panel(axes: Axes, cells: pd.DataFrame, kind: str, look: dict[str, Style]) -> None:
    lines = _labels(cells)
    names(axes, lines, shown=kind == _PANELS[0] or narrow(axes))
    for place in range(0, len(lines), 2):
        axes.axhspan(place - 0.5, place + 0.5, color="#f2f2f2", zorder=0, linewidth=0)
    if kind == "gain":
        axes.axvline(0, color="#333333", linewidth=1, zorder=1)
    for technique, points in _shifted(cells):
        style = look[technique]
        if kind == "gain":
            axes.hlines(points["at"], points["low"], points["high"], color=style.colour, linewidth=1)
        axes.plot(points[kind], points["at"], linestyle="none", marker=style.marker, color=style.colour,
                  markersize=5)
    axes.margins(x=0.06)
