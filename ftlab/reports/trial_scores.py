"""The trials of each cell of a sweep: their scores, and the budget curve."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ftlab.statistics.budget_curve import ExpectedBest, budget_curve
from ftlab.tracking.mlflow_values import objective
from ftlab.tracking.records import CellKey, TrialRecord


@dataclass(frozen=True)
class CellTrials:
    """One cell's trials.

    Attributes:
        key: the cell.
        ended: trials that will not change, by number; those that still go on are left out.
        running: how many still go on.
        objectives: of the sweep; the first ranks.
        curve: of the first objective, by trials spent.
        settled: nothing to search: one trial says what any number of them would.
    """

    key: CellKey
    ended: tuple[TrialRecord, ...]
    running: int
    objectives: tuple[str, ...]
    curve: tuple[ExpectedBest, ...]
    settled: bool = False

    @property
    def group(self) -> tuple[str, str]:
        """Only cells of one backbone and data set are compared."""
        return self.key.backbone, self.key.dataset

    @property
    def first_score(self) -> float | None:
        """Score of the study's own setting; None where it gave none."""
        scores = [score(t, self.objectives[0]) for t in self.ended if t.number == 0]
        return scores[0] if scores else None

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
) -> list[CellTrials]:
    """One entry a cell, in the given order within its group; groups as they first appear.

    Args:
        cells: those of the study, in its order; what else the store holds is left out.
        records: of the sweep's trials.
        objectives: the first makes the curve.
        higher_is_better: of the first objective.
        settled: techniques that have nothing to search.
    """
    of: dict[CellKey, list[TrialRecord]] = {key: [] for key in cells}
    for record in sorted(records, key=lambda record: record.number):
        if record.key in of:
            of[record.key].append(record)
    groups = list(dict.fromkeys((key.backbone, key.dataset) for key in cells))
    cells_tried = []
    for key in sorted(cells, key=lambda key: groups.index((key.backbone, key.dataset))):
        ended = tuple(t for t in of[key] if t.state in ("COMPLETE", "PRUNED", "FAIL"))
        curve = budget_curve([score(t, objectives[0]) for t in ended], higher_is_better)
        running = len(of[key]) - len(ended)
        cells_tried.append(CellTrials(key, ended, running, tuple(objectives), tuple(curve),
                           key.technique in set(settled)))
    return cells_tried
