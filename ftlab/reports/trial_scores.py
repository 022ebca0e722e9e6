"""The trials of each cell of a sweep: their scores, and the budget curve."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

from ftlab.statistics.budget_curve import (
    ExpectedBest,
    budget_curve,
    over_searches,
    with_random_band,
)
from ftlab.tracking.metric_range import limits
from ftlab.tracking.mlflow_values import objective
from ftlab.tracking.records import CellKey, TrialRecord


@dataclass(frozen=True)
class CellTrials:
    """One cell's trials.

    Attributes:
        key: the cell.
        ended: trials that will not change, by search and number; those that still go on are left out.
        running: how many still go on.
        objectives: of the sweep; the first ranks.
        curve: of the first objective, by trials spent; of several searches their mean.
        settled: nothing to search: one trial says what any number of them would.
        band: what the curve's band is: of `random` trials, or over `searches`; else why it has
            none, a trial that was `pruned`, or the `sampler`.
    """

    key: CellKey
    ended: tuple[TrialRecord, ...]
    running: int
    objectives: tuple[str, ...]
    curve: tuple[ExpectedBest, ...]
    settled: bool = False
    band: Literal["random", "searches", "pruned", "sampler"] = "sampler"

    @property
    def group(self) -> tuple[str, str]:
        """Only cells of one backbone and data set are compared."""
        return self.key.backbone, self.key.dataset

    @property
    def first_score(self) -> float | None:
        """Score of the study's own setting, over searches their mean; None where it gave none."""
        scores = [value for t in self.ended if t.number == 0
                  and (value := score(t, self.objectives[0])) is not None]
        return math.fsum(scores) / len(scores) if scores else None

    @property
    def scored(self) -> bool:
        """True where any trial gave a score."""
        return any(score(trial, self.objectives[0]) is not None for trial in self.ended)

    def count(self, state: str) -> int:
        """Trials that ended so: COMPLETE, PRUNED or FAIL."""
        return sum(trial.state == state for trial in self.ended)

    def after(self, k: int) -> ExpectedBest | None:
        """The best after k trials; None where the cell has not had as many."""
        if self.settled and self.curve:
            return self.curve[0]
        return self.curve[k - 1] if k <= len(self.curve) else None

    def points(self) -> list[tuple[TrialRecord, tuple[float, ...]]]:
        """Complete trials with all their objectives, for a Pareto front."""
        trials = []
        for trial in self.ended:
            values = [score(trial, name) for name in self.objectives]
            finite = tuple(value for value in values if value is not None)
            if trial.state == "COMPLETE" and len(finite) == len(values):
                trials.append((trial, finite))
        return trials


def score(trial: TrialRecord, name: str) -> float | None:
    """A trial's score: of a pruned one its best until then, a lower bound; of a failed one None."""
    if trial.state not in ("COMPLETE", "PRUNED"):
        return None
    value = trial.metrics.get(objective(name), math.nan)
    return value if math.isfinite(value) else None


def tried(
    cells: Sequence[CellKey],
    records: Iterable[TrialRecord],
    objectives: Sequence[str],
    higher_is_better: bool,
    settled: Iterable[str] = (),
    sampler: str = "",
) -> list[CellTrials]:
    """One entry a cell, in the given order within its group; groups as they first appear.

    Args:
        cells: those of the study, in its order; what else the store holds is left out.
        records: of the sweep's trials.
        objectives: the first makes the curve.
        higher_is_better: of the first objective.
        settled: techniques that have nothing to search.
        sampler: the name of its class; empty where it is not known.
    """
    of: dict[CellKey, list[TrialRecord]] = {key: [] for key in cells}
    for record in sorted(records, key=lambda record: (record.search, record.number)):
        if record.key in of:
            of[record.key].append(record)
    groups = list(dict.fromkeys((key.backbone, key.dataset) for key in cells))
    cells_tried = []
    for key in sorted(cells, key=lambda key: groups.index((key.backbone, key.dataset))):
        ended = tuple(t for t in of[key] if t.state in ("COMPLETE", "PRUNED", "FAIL"))
        running = len(of[key]) - len(ended)
        made = CellTrials(key, ended, running, tuple(objectives), (), key.technique in set(settled))
        cells_tried.append(_with_curve(made, higher_is_better, sampler))
    return cells_tried


def _with_curve(row: CellTrials, higher_is_better: bool, sampler: str) -> CellTrials:
    """A cell's trials with their curve, and with a band where one can be had."""
    metric = row.objectives[0]
    curves = [budget_curve([score(trial, metric) for trial in trials], higher_is_better)
              for _, trials in groupby(row.ended, key=lambda trial: trial.search)]
    if len(curves) > 1:
        return replace(row, curve=tuple(over_searches(curves)), band="searches")
    row = replace(row, curve=tuple(curves[0]) if curves else (),
                  band="pruned" if row.count("PRUNED") else "sampler")
    if sampler != "RandomSampler" or row.band == "pruned" or row.settled:
        return row
    drawn = [score(trial, metric) for trial in row.ended if trial.number]  # 0 is the own setting
    curve = with_random_band(row.curve, drawn, limits(metric), higher_is_better)
    return replace(row, curve=tuple(curve), band="random")
