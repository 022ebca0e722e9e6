"""Confusion matrices of each technique."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ftlab.reports.figures.base import Drawing
from ftlab.reports.figures.frames import lines_of
from ftlab.reports.figures.labels import group_title, labels
from ftlab.reports.figures.matplotlib_axes import canvas, ink, leftmost
from ftlab.reports.figures.predictions import best, classes, confusions
from ftlab.reports.study_results import StudyResults

_NUMBERED, _NAMED = 12, 30  # classes up to which each cell has its number, and each class its name
_MOST = 12  # matrices of a group


class ConfusionMatrices(Drawing):
    """Rows are targets and sum to 100%; mean over seeds."""

    name: ClassVar[str] = "confusion_matrices"
    title: ClassVar[str] = "Confusion matrices"
    order: ClassVar[int] = 60

    def data(self, results: StudyResults) -> pd.DataFrame | None:
        """A line a group and technique: `classes`, `shares` (C, C) in percent, n seeds.

        Of more than twelve techniques those with the best means.
        """
        matrices: list[dict[str, Any]] = []
        for group in results.groups:
            names = classes(results, group)
            for row in best(results, group, _MOST) if names else ():
                counts = confusions(results, row.key, names)
                if counts:
                    shares = np.mean([_shares(matrix) for matrix in counts.values()], axis=0)
                    matrices.append({"group": group, "technique": row.key.technique,
                                  "classes": names, "shares": shares, "n": len(counts)})
        return pd.DataFrame(matrices) if matrices else None

    def draw(self, data: pd.DataFrame, results: StudyResults) -> Figure:
        largest = max(len(names) for names in data["classes"])
        side = min(2.6 + 0.16 * min(largest, _NAMED), 6.0)
        counts = data.groupby("group", sort=False)["technique"].size().tolist()
        figure, all_axes = canvas(counts, 4, side, side)
        several = data["group"].nunique() > 1
        for axes, panel in zip(all_axes, lines_of(data), strict=True):
            image = _matrix(axes, panel.shares, panel.classes)
            axes.set_title(_heading(panel, several))
        figure.colorbar(image, ax=all_axes, label="% of the target class", shrink=0.6,
                        aspect=30, pad=0.02)
        return figure

    def caption(self, data: pd.DataFrame, results: StudyResults) -> str:
        seeds = sorted(set(data["n"]))
        n = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        most = ""
        if len(results.techniques) > _MOST:
            most = f" The {_MOST} techniques with the best means are shown."
        empty = " Grey: the test split has no example of the class."
        gaps = any(np.isnan(shares).any() for shares in data["shares"])
        return (f"Percent of a target class (row) that were given each class (column) in the test "
                f"split; mean over finished seeds with predictions (n = {n}).{empty * gaps}{most}")


def _shares(counts: np.ndarray) -> np.ndarray:
    support = counts.sum(axis=1, keepdims=True)
    shares = np.full(counts.shape, np.nan)
    np.divide(100 * counts, support, out=shares, where=support > 0)
    return shares


def _heading(panel: Any, several: bool) -> str:
    called = labels([panel.technique])[panel.technique]
    return f"{called}\n{group_title(panel.group)}" if several else called


def _called(names: list[str]) -> list[str]:
    return list(labels(names, 18).values())


def _matrix(axes: Axes, shares: np.ndarray, names: list[str]) -> Any:
    axes.set_facecolor("#cccccc")
    image = axes.imshow(np.ma.masked_invalid(shares), cmap="Blues", vmin=0, vmax=100)
    axes.grid(visible=False)
    size = len(names)
    axes.set(xlabel="prediction", ylabel="target" if leftmost(axes) else "")
    if size <= _NAMED:
        font = 8 if size <= 15 else 6
        axes.set_xticks(range(size), _called(names), rotation=90, fontsize=font)
        axes.set_yticks(range(size), _called(names) if leftmost(axes) else [""] * size,
                        fontsize=font)
    else:
        axes.set_xticks([])
        axes.set_yticks([])
    if size <= _NUMBERED:
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.5:
                axes.text(column, row, f"{share:.0f}", ha="center", va="center",
                          fontsize=8 if size <= 8 else 6,
                          color=ink(colormaps["Blues"](share / 100)))
    return image
