"""What more trials buy: the budget curves of a study's sweeps."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from ftlab.reports.colours import Style, styles
from ftlab.reports.figures.base import Drawing
from ftlab.reports.figures.frames import parts
from ftlab.reports.figures.labels import group_title, metric_title, scale
from ftlab.reports.figures.matplotlib_axes import canvas, legend
from ftlab.reports.figures.plotly_axes import PlotlyGrid, line
from ftlab.reports.study_results import StudyResults
from ftlab.reports.trial_scores import CellTrials, tried
from ftlab.tracking.mlflow_values import shorten
from ftlab.tracking.records import TrialRecord
from ftlab.tracking.sweeps import SweepTracker

_OBJECTIVE = "objective/"


class BudgetCurves(Drawing):
    """Expected best score after k trials, over all orders of a sweep's trials."""

    name: ClassVar[str] = "budget_curves"
    title: ClassVar[str] = "Budget curves"
    order: ClassVar[int] = 80

    def data(self, evidence: StudyResults) -> pd.DataFrame | None:
        """A line a sweep, group, technique and k: expected, low, high; and the objective."""
        if not isinstance(evidence.tracker, SweepTracker):
            return None
        keys = [row.key for row in evidence.rows]
        found: list[dict[str, Any]] = []
        for sweep in evidence.tracker.sweeps(evidence.study):
            records = evidence.tracker.trials(evidence.study, sweep)
            objective = _objective(records, evidence)
            if objective:
                rows = tried(keys, records, [objective], _higher(objective, evidence),
                             _settled(records))
                found += [entry for row in rows if row.scored
                          for entry in _entries(sweep, row, rows, objective)]
        return pd.DataFrame(found) if found else None

    def draw(self, data: pd.DataFrame, evidence: StudyResults) -> Figure:
        panels = parts(data, "sweep", "group")
        figure, all_axes = canvas([len(panels)], 3, 5.0 if len(panels) > 1 else 6.4, 3.6)
        look = styles(evidence.techniques)
        for axes, ((sweep, group), lines) in zip(all_axes, panels, strict=True):
            axes.set_title(_heading(sweep, group))
            for technique, points in parts(lines, "technique"):
                _curve(axes, points, look[str(technique)])
            _trials(axes, int(lines["k"].max()))
            axes.set_ylabel(_title(lines, evidence))
        shown = set(data["technique"])
        legend(figure, {name: style for name, style in look.items() if name in shown}, lines=True)
        return figure

    def plot(self, data: pd.DataFrame, evidence: StudyResults) -> dict[str, Any]:
        panels = parts(data, "sweep", "group")
        look, shown = styles(evidence.techniques), set(data["technique"])
        screen = PlotlyGrid([_heading(sweep, group) for (sweep, group), _ in panels], 260, 2,
                        legend=[name for name in look if name in shown])
        for n, (_, lines) in enumerate(panels):
            most = int(lines["k"].max())
            screen.axis("x", n, "trials spent", **(
                {"type": "log"} if most > 2 else {}), tickvals=_ticks(most),
                ticktext=[str(tick) for tick in _ticks(most)])
            screen.axis("y", n, _title(lines, evidence))
            for technique, points in parts(lines, "technique"):
                name, style = str(technique), look[str(technique)]
                banded = points[points["low"].notna() & points["high"].notna()]
                xs = banded["k"].tolist()
                screen.add(n, name, type="scatter", mode="lines", hoverinfo="skip", named=False,
                           x=[*xs, *reversed(xs)], fill="toself", fillcolor=style.colour,
                           y=[*banded["high"], *reversed(banded["low"].tolist())], opacity=0.15,
                           line={"width": 0})
                known = points[points["expected"].notna()]
                screen.add(n, name, type="scatter", mode="lines+markers", x=known["k"].tolist(),
                           y=known["expected"].tolist(), line=line(style),
                           marker={"size": 5, "color": style.colour})
        return screen.done()

    def caption(self, data: pd.DataFrame, evidence: StudyResults) -> str:
        counts = data.groupby(["sweep", "group", "technique"])["trials"].first()
        most, least = int(counts.max()), int(counts.min())
        n = f"{most}" if most == least else f"{least} to {most}"
        return (f"Expected best score of the first k of n = {n} trials, over all orders of the "
                "trials (exact). Bands: 5 to 95% of the orders; they say what the order does, not "
                "what other seeds or data would.")


def _objective(records: list[TrialRecord], evidence: StudyResults) -> str:
    """What ranks a sweep's trials: no cost, and the compared metric before others."""
    named = sorted({name.removeprefix(_OBJECTIVE) for record in records
                    for name in record.metrics if name.startswith(_OBJECTIVE)})
    scores = [name for name in named if not name.startswith("cost/")]
    wanted = f"val/{evidence.metric.partition('/')[2]}"
    return wanted if wanted in scores else scores[0] if scores else ""


def _higher(objective: str, evidence: StudyResults) -> bool:
    task = next(iter(evidence.tasks.values()), None)
    name = objective.partition("/")[2]
    if task is None or name == evidence.metric.partition("/")[2]:
        return evidence.higher_is_better
    return task.higher_is_better(name)


def _settled(records: list[TrialRecord]) -> set[str]:
    """Techniques of whose hyperparameters nothing was searched."""
    searched = {record.key.technique for record in records
                if any(name.startswith(f"{record.key.technique}.") for name in record.params)}
    return {record.key.technique for record in records} - searched


def _entries(sweep: str, row: CellTrials, rows: list[CellTrials], objective: str) -> list[dict[str, Any]]:
    most = max(len(other.curve) for other in rows if other.group == row.group)
    by, found = scale(objective), []
    for k in range(1, most + 1):
        best = row.after(k)
        if best is not None:
            low, expected, high = (by * value if math.isfinite(value) else math.nan
                                   for value in (best.low, best.expected, best.high))
            found.append({"sweep": sweep, "group": row.group, "technique": row.key.technique,
                          "k": k, "low": low, "expected": expected, "high": high,
                          "objective": objective, "trials": len(row.ended)})
    return found


def _heading(sweep: str, group: tuple[str, str]) -> str:
    return f"{group_title(group)}\nsweep {shorten(sweep, 40)}"


def _title(lines: pd.DataFrame, evidence: StudyResults) -> str:
    objective = str(lines["objective"].iloc[0])
    return f"expected best {metric_title(objective, _higher(objective, evidence))}"


def _curve(axes: Axes, points: pd.DataFrame, style: Style) -> None:
    banded = points[points["low"].notna() & points["high"].notna()]
    axes.fill_between(banded["k"], banded["low"], banded["high"], color=style.colour, alpha=0.12,
                      linewidth=0)
    known = points[points["expected"].notna()]
    axes.plot(known["k"], known["expected"], color=style.colour, linestyle=style.line,
              linewidth=1.6, marker=style.marker if len(known) <= 32 else None, markersize=4.5)


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
