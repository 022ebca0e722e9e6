"""Training loss and validation score over the epochs, with a band over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ftlab.reports.colours import Style, styles
from ftlab.reports.figures.base import Drawing
from ftlab.reports.figures.frames import parts
from ftlab.reports.figures.labels import group_title, metric_title, scale
from ftlab.reports.figures.matplotlib_axes import canvas, legend
from ftlab.reports.study_results import StudyResults
from ftlab.tracking.records import RunRecord

MOST_RUNS = 2000
"""Each run's curves are asked for one by one."""
_MARKED = 12  # points up to which each is marked
_LOSS, _BATCH_LOSS = "train/epoch_loss", "train/loss"


class LearningCurves(Drawing):
    """Over the epochs; over the optimizer's steps where no run has two epochs."""

    name: ClassVar[str] = "learning_curves"
    title: ClassVar[str] = "Learning curves"
    order: ClassVar[int] = 30

    def data(self, results: StudyResults) -> pd.DataFrame | None:
        """A line a group, technique, metric and x: mean, low, high over seeds, n.

        Where seeds stop at different epochs, only those that all of them reached are there.
        """
        if sum(len(results.runs(row.key)) for row in results.rows) > MOST_RUNS:
            return None
        seeds = pd.DataFrame(_points(results, (_LOSS, _of_validation(results)), "epoch"))
        if seeds.empty or seeds["x"].max() < 2:
            seeds = pd.DataFrame(_points(results, (_BATCH_LOSS,), "step"))
        if seeds.empty or seeds["x"].nunique() < 2:
            return None
        return _over_seeds(seeds)

    def draw(self, data: pd.DataFrame, results: StudyResults) -> Figure:
        panels = parts(data, "group", "metric")
        figure, all_axes = canvas([len(panels)], data["metric"].nunique(), 4.6, 3.2)
        look = styles(results.techniques)
        for axes, ((group, metric), lines) in zip(all_axes, panels, strict=True):
            axes.set_title(group_title(group))
            for technique, points in parts(lines, "technique"):
                _curve(axes, points, look[str(technique)])
            axes.set_xlabel(str(lines["over"].iloc[0]))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_ylabel(_title(results, str(metric)))
        shown = set(data["technique"])
        legend(figure, {name: style for name, style in look.items() if name in shown}, lines=True)
        return figure

    def caption(self, data: pd.DataFrame, results: StudyResults) -> str:
        counts = sorted(set(data["n"]))
        n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        band = "; bands reach from the lowest to the highest seed" if counts[-1] > 1 else ""
        cut = " Drawn as far as all seeds of a technique went." if bool(data["cut"].any()) else ""
        loss = ("Training loss is the mean of an epoch's batches."
                if _LOSS in set(data["metric"]) else "Training loss is that of single batches.")
        return f"Mean over seeds (n = {n}){band}. {loss}{cut}"


def _of_validation(results: StudyResults) -> str:
    """The validation side of the compared metric; the loss where no run has it."""
    wanted = f"val/{results.metric.partition('/')[2]}"
    logged = {name for row in results.rows for run in results.runs(row.key) for name in run.metrics}
    return wanted if wanted in logged else "val/loss"


def _points(results: StudyResults, metrics: tuple[str, ...], over: str) -> Iterator[dict[str, Any]]:
    scales = {metric: scale(results.named(metric)) for metric in metrics}
    for row in results.rows:
        for metric, by in scales.items():
            for run in results.runs(row.key):
                for x, value in _course(results, run, metric, over):
                    yield {"group": row.group, "metric": metric, "technique": row.key.technique,
                           "seed": run.seed, "x": x, "value": by * value,
                           "over": "epoch" if over == "epoch" else "optimizer step"}


def _course(results: StudyResults, run: RunRecord, metric: str, over: str
            ) -> list[tuple[float, float]]:
    """A metric by epoch or step; what is measured after the fit has no epoch."""
    if metric not in run.metrics:
        return []
    values = dict(results.history(run, metric))
    places = {step: float(step) for step in values}
    if over == "epoch":
        places = dict(results.history(run, "epoch"))
    return [(places[step], value) for step, value in values.items()
            if step in places and math.isfinite(value)]


def _over_seeds(seeds: pd.DataFrame) -> pd.DataFrame:
    by = ["group", "metric", "technique"]
    curves = (seeds.groupby([*by, "x"], sort=False)
             .agg(mean=("value", "mean"), low=("value", "min"), high=("value", "max"),
                  n=("value", "size"), over=("over", "first")).reset_index())
    all_of = seeds.groupby(by, sort=False)["seed"].nunique().rename("seeds").reset_index()
    curves = curves.merge(all_of, on=by, how="left", sort=False)
    whole = curves["n"] == curves["seeds"]
    cut = curves.assign(cut=~whole).groupby(by, sort=False)["cut"].transform("any")
    return curves.assign(cut=cut)[whole].reset_index(drop=True)


def _title(results: StudyResults, metric: str) -> str:
    if metric in (_LOSS, _BATCH_LOSS):
        return "training loss"
    return metric_title(results.named(metric), metric == "val/loss" or results.higher_is_better)


def _curve(axes: Axes, points: pd.DataFrame, style: Style) -> None:
    xs = points["x"].tolist()
    if points["n"].iloc[0] > 1:
        axes.fill_between(xs, points["low"], points["high"], color=style.colour, alpha=0.13,
                          linewidth=0)
    axes.plot(xs, points["mean"], color=style.colour, linestyle=style.line, linewidth=1.6,
              marker=style.marker if len(xs) <= _MARKED else None, markersize=4.5)
