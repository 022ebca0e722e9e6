"""The budget curves of a study's sweeps: the score that more trials buy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import pandas as pd
from matplotlib.figure import Figure

from ftlab.reports import budget_table
from ftlab.reports.colours import styles
from ftlab.reports.figures.base import Drawing
from ftlab.reports.figures.curve_panels import curve_points, draw_curves
from ftlab.reports.study_results import StudyResults
from ftlab.reports.trial_scores import tried
from ftlab.sweeps.search_names import search_of
from ftlab.tracking.records import TrialRecord

_OBJECTIVE = "objective/"


class BudgetCurves(Drawing):
    """Expected best score after k trials, over all orders of a sweep's trials."""

    name: ClassVar[str] = "budget_curves"
    title: ClassVar[str] = "Budget curves"
    order: ClassVar[int] = 80

    def data(self, results: StudyResults) -> pd.DataFrame | None:
        """A line a sweep, group, technique and k: expected, low, high; and the objective."""
        if results.tracker is None:
            return None
        keys = [row.key for row in results.rows]
        points: list[dict[str, Any]] = []
        names = results.tracker.sweeps(results.study)
        for sweep in sorted({search_of(name)[0] for name in names}):
            records = [replace(record, search=search) for name in names
                       for of, search in [search_of(name)] if of == sweep
                       for record in results.tracker.trials(results.study, name)]
            objective = _objective(records, results)
            if objective:
                rows = tried(keys, records, [results.named(objective)], _higher(objective, results),
                             _settled(records), results.tracker.sampler(results.study, sweep))
                points += [{**point, "band": budget_table.bands(rows)}
                           for point in curve_points(rows, results.named(objective), sweep)]
        return pd.DataFrame(points) if points else None

    def draw(self, data: pd.DataFrame, results: StudyResults) -> Figure:
        return draw_curves(data, styles(results.techniques),
                           lambda objective: _higher(objective, results))

    def caption(self, data: pd.DataFrame, results: StudyResults) -> str:
        counts = data.groupby(["sweep", "group", "technique"])["trials"].first()
        most, least = int(counts.max()), int(counts.min())
        n = f"{most}" if most == least else f"{least} to {most}"
        return (f"Expected best score of the first k of n = {n} trials, over all orders of the "
                f"trials (exact). {' '.join(dict.fromkeys(data['band']))}")


def _objective(records: list[TrialRecord], results: StudyResults) -> str:
    """The objective that ranks a sweep's trials: no cost, and the compared metric first."""
    named = sorted({name.removeprefix(_OBJECTIVE) for record in records
                    for name in record.metrics if name.startswith(_OBJECTIVE)})
    scores = [name for name in named if not name.startswith("cost/")]
    wanted = f"val/{results.metric.partition('/')[2]}"
    return wanted if wanted in scores else scores[0] if scores else ""


def _higher(objective: str, results: StudyResults) -> bool:
    if objective.partition("/")[2] == results.metric.partition("/")[2]:
        return results.higher_is_better
    return results.upwards(objective)


def _settled(records: list[TrialRecord]) -> set[str]:
    """Techniques of whose hyperparameters nothing was searched."""
    searched = {record.key.technique for record in records
                if any(name.startswith(f"{record.key.technique}.") for name in record.params)}
    return {record.key.technique for record in records} - searched
