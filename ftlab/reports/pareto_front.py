"""The Pareto front of a sweep with several objectives: the trials that no other one beats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from ftlab.reports.metric_text import digits
from ftlab.reports.table import NONE, Column, Table, group_title, tabulate
from ftlab.reports.trial_scores import CellTrials
from ftlab.tracking.metric_range import is_percent
from ftlab.tracking.records import CellKey, TrialRecord


def dominates(one: Sequence[float], other: Sequence[float], higher_is_better: Sequence[bool]) -> bool:
    """True where `one` is nowhere worse than `other`, and somewhere better."""
    gains = [a - b if higher else b - a
             for a, b, higher in zip(one, other, higher_is_better, strict=True)]
    return min(gains) >= 0 and max(gains) > 0


def pareto_front(
    points: Sequence[Sequence[float]], higher_is_better: Sequence[bool]
) -> list[int]:
    """Places of the points that none dominates, in the points' order; equal points stay together.

    Args:
        points: each with a finite number an objective.
        higher_is_better: of each objective.
    """
    return [
        place for place, point in enumerate(points)
        if not any(dominates(other, point, higher_is_better) for other in points)
    ]


@dataclass(frozen=True)
class Point:
    """A complete trial.

    Attributes:
        key: its cell.
        trial: its record.
        values: of each objective.
        leads: on the front of its technique.
        overall: on the front of all techniques of its backbone and data set.
    """

    key: CellKey
    trial: TrialRecord
    values: tuple[float, ...]
    leads: bool
    overall: bool

    @property
    def group(self) -> tuple[str, str]:
        """Only cells of one backbone and data set are compared."""
        return self.key.backbone, self.key.dataset


def points(rows: Sequence[CellTrials], higher_is_better: Sequence[bool]) -> list[Point]:
    """Every complete trial, and which fronts it is on; best first objective first in its group."""
    all_points: list[Point] = []
    for _, members in groupby(rows, key=lambda row: row.group):
        of_group = [(row.key, *point) for row in members for point in row.points()]
        overall = set(pareto_front([values for _, _, values in of_group], higher_is_better))
        first = {
            place
            for key in dict.fromkeys(key for key, _, _ in of_group)
            for place in _of_cell(of_group, key, higher_is_better)
        }
        sign = -1.0 if higher_is_better[0] else 1.0
        made = [Point(key, trial, values, place in first, place in overall)
                for place, (key, trial, values) in enumerate(of_group)]
        all_points += sorted(made, key=lambda point: sign * point.values[0])
    return all_points


def _of_cell(
    of_group: Sequence[tuple[CellKey, TrialRecord, tuple[float, ...]]], key: CellKey,
    higher_is_better: Sequence[bool],
) -> list[int]:
    places = [place for place, (other, _, _) in enumerate(of_group) if other == key]
    return [places[i] for i in pareto_front([of_group[p][2] for p in places], higher_is_better)]


def layout(title: str, front: Sequence[Point], objectives: Sequence[str],
           searched: Mapping[str, Sequence[str]]) -> Table:
    """The table: the trials on the front of their technique, those on the common front in bold.

    Args:
        title: what was done, the caption's first sentence.
        front: from `points`.
        objectives: of the sweep.
        searched: by technique, its hyperparameters, to show each trial's setting.
    """
    def objective(n: int, name: str) -> Column[Point]:
        number = digits(name, [point.values[n] for point in front])

        def text(point: Point) -> str:
            value = point.values[n]
            whole = name.startswith("cost/") and value == int(value)
            return f"{value:,.0f}" if whole else number(value)

        return Column(f"{name}{', %' * is_percent(name)}", text, lambda point: not n and point.overall)

    return tabulate(
        [point for point in front if point.leads],
        [*(objective(n, name) for n, name in enumerate(objectives)),
         Column("trial", lambda point: str(point.trial.number)),
         *([Column[Point]("search", lambda point: str(point.trial.search + 1))] if _several(front) else []),
         Column("setting", lambda point: _setting(point, searched))],
        name=lambda point: point.key.technique, title=lambda point: group_title(point.group),
        caption=f"{title} Pareto fronts: complete trials that no other trial of their technique "
                f"beats in one of {', '.join(objectives)} without losing in another. Bold: nor "
                "any trial of another technique of their backbone and data set.")


def _several(front: Sequence[Point]) -> bool:
    """Return whether the trials are of several searches."""
    return any(point.trial.search for point in front)


def _setting(point: Point, searched: Mapping[str, Sequence[str]]) -> str:
    """`rank 16, lr 0.003322`: what was searched, floats to four digits."""
    return ", ".join(f"{name} {_short(value)}"
                     for name, value in _values(point, searched).items()) or NONE


def _values(point: Point, searched: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The searched hyperparameters of a trial, as the store has them."""
    technique, params = point.key.technique, point.trial.params
    return {name: params[f"{technique}.{name}"] for name in searched.get(technique, ())
            if f"{technique}.{name}" in params}


def _short(text: str) -> str:
    try:
        return text if text.lstrip("-").isdigit() else f"{float(text):.4g}"
    except ValueError:
        return text


def lines(front: Sequence[Point], objectives: Sequence[str],
          searched: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """Every complete trial as numbers in base units, with its fronts as 0 and 1."""
    names = dict.fromkeys(name for hyperparameters in searched.values() for name in hyperparameters)
    return [
        {
            "backbone": point.key.backbone, "dataset": point.key.dataset,
            "technique": point.key.technique, "trial": point.trial.number,
            **({"search": point.trial.search + 1} if _several(front) else {}),
            **dict(zip(objectives, point.values, strict=True)),
            "front_of_technique": int(point.leads), "front_of_all": int(point.overall),
            **{name: _values(point, searched).get(name, "") for name in names},
            "run_id": point.trial.run_id,
        }
        for point in front
    ]
