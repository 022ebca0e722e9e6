"""The study's figure: the metric against what is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby

from matplotlib.axes import Axes

from ftlab.reports.colours import styles
from ftlab.reports.metric_text import is_percent
from ftlab.reports.picture import grid, plain, png
from ftlab.reports.rows import Row
from ftlab.tracking.plain import shorten


def draw(rows: Sequence[Row], metric: str, higher_is_better: bool = True) -> bytes | None:
    """Mean with its 95% interval against trainable parameters, one axes a backbone and data set.

    The axis of parameters is logarithmic; where something trains nothing, it begins at 0.

    Returns:
        A PNG without time or software in it, the same for the same rows; None where no row has
        both numbers.
    """
    shown = [row for row in rows if math.isfinite(row.summary.mean) and math.isfinite(row.trainable)]
    if not shown:
        return None
    groups = [(name, list(members)) for name, members in groupby(shown, key=lambda r: r.group)]
    look = styles(row.key.technique for row in rows)
    with plain():
        figure, all_axes = grid(len(groups))
        for axes, ((backbone, dataset), members) in zip(all_axes, groups, strict=True):
            axes.set_title(shorten(f"{dataset} from {backbone}", 60), parse_math=False, fontsize=10)
            _points(axes, members, metric, look)
            _axes(axes, members, metric, higher_is_better)
        return png(figure)


def _points(
    axes: Axes, rows: Sequence[Row], metric: str, look: Mapping[str, tuple[str, str]]
) -> None:
    scale = 100 if is_percent(metric) else 1
    for row in rows:
        mean = scale * row.summary.mean
        half = scale * (row.summary.ci_high - row.summary.mean)
        axes.errorbar(
            row.trainable,
            mean,
            yerr=half if math.isfinite(half) else None,
            fmt="o" if not row.note else "x",
            color=look[row.key.technique][0],
            capsize=3,
        )
        label = row.key.technique + (" (incomplete)" if row.note else "")
        text = axes.annotate(
            shorten(label, 40),
            (row.trainable, mean),
            xytext=(6, 5),
            textcoords="offset points",
            fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5},
            parse_math=False,
        )
        text.set_in_layout(False)  # a long name must not squeeze the axes


def _axes(axes: Axes, rows: Sequence[Row], metric: str, higher_is_better: bool) -> None:
    trained = [row.trainable for row in rows if row.trainable]
    if len(trained) == len(rows):
        axes.set_xscale("log")
    elif trained:  # linear from 0 to the power of ten below what trains least
        threshold = 10.0 ** math.floor(math.log10(min(trained)))
        axes.set_xscale("symlog", linthresh=threshold, linscale=0.5)
    axes.margins(x=0.2, y=0.1)
    if len(trained) < len(rows):
        axes.set_xticks([tick for tick in axes.get_xticks() if tick >= 0] if trained else [0])
        axes.minorticks_off()
    axes.set_xlabel("trainable parameters")
    unit = ", %" if is_percent(metric) else ""
    better = "" if higher_is_better else "\nless is better"
    axes.set_ylabel(f"{shorten(metric, 30)}{unit} (mean, 95% interval){better}", parse_math=False)
    axes.grid(alpha=0.3)
