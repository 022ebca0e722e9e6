"""Scores of groups of examples, and the worst against all: whom does a technique fail?"""

from __future__ import annotations

from typing import Any, ClassVar

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ftlab.reports.colours import Style, styles
from ftlab.reports.csv_files import to_csv
from ftlab.reports.figures.base import Drawing
from ftlab.reports.figures.frames import lines_of, parts
from ftlab.reports.figures.labels import group_title, labels, metric_title, scale
from ftlab.reports.figures.matplotlib_axes import canvas, legend, names
from ftlab.reports.study_results import StudyResults
from ftlab.statistics.seed_summary import summarise
from ftlab.tasks.over_groups import OF_EACH, WORST, bare, of_which, parsed
from ftlab.tracking.metric_range import limits
from ftlab.tracking.records import CellKey

_ALL, _WORST, _EACH = "all", "worst", "each"
_FIELDS = ("metric", "part", "group", "mean", "std", "n", "ci_low", "ci_high")


class ExampleGroups(Drawing):
    """A line a group of examples with all techniques, and the worst group's score against the whole's."""

    name: ClassVar[str] = "example_groups"
    title: ClassVar[str] = "Groups of examples"
    order: ClassVar[int] = 45
    tables: ClassVar[tuple[str, ...]] = ("example_groups.csv",)

    def data(self, results: StudyResults) -> pd.DataFrame | None:
        """A line a cell and part (all, the worst, each group): mean and interval over seeds, n."""
        metric = self._metric(results)
        by, lines = scale(results.named(metric)), []
        for row in results.rows:
            for kind, part, name in _parts(results, row.key, metric):
                summary = _summary(results, row.key, name)
                lines.append({
                    "group": row.group, "technique": row.key.technique, "kind": kind, "part": part,
                    "mean": by * summary.mean, "low": by * summary.ci_low,
                    "high": by * summary.ci_high, "n": summary.n})
        made = pd.DataFrame(lines)
        return made if len(made) and made["mean"].notna().any() else None

    def draw(self, data: pd.DataFrame, results: StudyResults) -> Figure:
        groups = parts(data, "group")
        most = data[data["kind"] == _EACH].groupby("group")["part"].nunique().max()
        techniques = data["technique"].nunique()
        height = 1.2 + most * max(0.3, 0.06 * techniques + 0.1)
        figure, all_axes = canvas([2 * len(groups)], 2, 5.2, min(max(height, 3.2), 24.0))
        look = styles(results.techniques)
        metric = results.named(self._metric(results))
        title = metric_title(metric, _upwards(results, metric))
        for n, axes in enumerate(all_axes):
            group, cells = groups[n // 2]
            axes.set_title(group_title(group))
            if n % 2:
                _against(axes, cells, look)
                axes.set_ylabel(f"{title}, worst group")
            else:
                _by_group(axes, cells, look)
            axes.set_xlabel(title if n % 2 == 0 else f"{title}, all examples")
        shown = set(data["technique"])
        legend(figure, {name: style for name, style in look.items() if name in shown})
        return figure

    def texts(self, data: pd.DataFrame, results: StudyResults) -> dict[str, str]:
        """Every metric over groups, of each cell: of each group, worst, gap, by train's shares."""
        split = f"{results.metric.partition('/')[0]}/"
        lines: list[dict[str, Any]] = []
        for row in results.rows:
            measured = {name for run in results.runs(row.key) for name in run.metrics}
            for name in sorted(measured):
                over = parsed(name.removeprefix(split)) if name.startswith(split) else None
                if over is None:
                    continue
                summary = _summary(results, row.key, name)
                lines.append({
                    "backbone": row.key.backbone, "dataset": row.key.dataset,
                    "technique": row.key.technique, **dict(zip(_FIELDS, over, strict=False)),
                    "mean": summary.mean, "std": summary.std, "n": summary.n,
                    "ci_low": summary.ci_low, "ci_high": summary.ci_high})
        return {self.tables[0]: to_csv(("backbone", "dataset", "technique", *_FIELDS), lines)}

    def caption(self, data: pd.DataFrame, results: StudyResults) -> str:
        seeds = sorted(set(data["n"]))
        n = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        return (f"{metric_title(self._metric(results))} of each value of the data set's column "
                f"`group`, mean over seeds (n = {n}); bars are its 95% interval. Right: of the worst "
                "group, found for each seed by itself, against that of all examples; on the dotted "
                "line there is no gap. The worst of several noisy scores is worse than the mean of the "
                "worst group's, the more so the smaller groups are. All metrics over groups are in "
                "example_groups.csv.")

    def _metric(self, results: StudyResults) -> str:
        """The study's metric, without what makes it one over groups; accuracy's like for a loss."""
        split, _, name = results.metric.partition("/")
        measured = {measure for key in results.keys for run in results.runs(key) for measure in run.metrics}
        return of_which(results.metric, measured) or f"{split}/{bare(name)}"


def _upwards(results: StudyResults, metric: str) -> bool:
    """The direction on the first data set whose task has the metric."""
    known = (results.direction(name, metric) for name in results.datasets)
    return next((upwards for upwards in known if upwards is not None), True)


def _parts(results: StudyResults, key: CellKey, metric: str) -> list[tuple[str, str, str]]:
    """Kind, group and name of a cell's metrics: of all, of the worst, of each group."""
    split, _, name = metric.partition("/")
    begins = f"{metric}{OF_EACH}/"
    measured = sorted({m for run in results.runs(key) for m in run.metrics if m.startswith(begins)})
    if not measured:
        return []
    return [(_ALL, "", metric), (_WORST, "", f"{split}/{WORST}{name}"),
            *((_EACH, m.removeprefix(begins), m) for m in measured)]


def _summary(results: StudyResults, key: CellKey, metric: str) -> Any:
    return summarise(results.values(key, metric).values(), limits(results.named(metric)))


def _by_group(axes: Axes, cells: pd.DataFrame, look: dict[str, Style]) -> None:
    cells = cells[cells["kind"] == _EACH]
    order = cells.groupby("part")["mean"].mean().sort_values(ascending=False).index.tolist()
    names(axes, list(labels(order).values()))
    for place in range(0, len(order), 2):
        axes.axhspan(place - 0.5, place + 0.5, color="#f2f2f2", zorder=0, linewidth=0)
    members = parts(cells, "technique")
    step = 0.6 / max(len(members), 3)
    for n, (technique, points) in enumerate(members):
        style, shift = look[str(technique)], step * (n - (len(members) - 1) / 2)
        for point in lines_of(points):
            _point(axes, point.mean, order.index(point.part) + shift, style,
                   across=(point.low, point.high))
    axes.margins(x=0.06)


def _against(axes: Axes, cells: pd.DataFrame, look: dict[str, Style]) -> None:
    whole = {line.technique: line for line in lines_of(cells[cells["kind"] == _ALL])}
    for line in lines_of(cells[cells["kind"] == _WORST]):
        of_all = whole[line.technique]
        _point(axes, of_all.mean, line.mean, look[line.technique],
               across=(of_all.low, of_all.high), up=(line.low, line.high))
    ends = cells[cells["kind"] != _EACH]["mean"]
    axes.plot([ends.min(), ends.max()], [ends.min(), ends.max()], ":", color="#555555", linewidth=1,
              zorder=1)
    axes.margins(0.08)


def _point(axes: Axes, x: float, y: float, look: Style, across: tuple[float, float],
           up: tuple[float, float] | None = None) -> None:
    def bar(value: float, ends: tuple[float, float] | None) -> Any:
        return None if ends is None or pd.isna(ends[0]) else [[value - ends[0]], [ends[1] - value]]

    axes.errorbar([x], [y], xerr=bar(x, across), yerr=bar(y, up), fmt=look.marker, color=look.colour,
                  markersize=5, capsize=2, linewidth=1)
