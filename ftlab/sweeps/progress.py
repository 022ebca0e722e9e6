"""The progress of a sweep: each cell's trials, and the best of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from optuna.trial import FrozenTrial, TrialState

from ftlab.studies.study import Cell

Direction = Literal["maximize", "minimize"]
WORDS = {TrialState.RUNNING: "running", TrialState.COMPLETE: "complete",
         TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


@dataclass(frozen=True)
class CellProgress:
    """The trials of a cell so far.

    Attributes:
        cell: the cell.
        budget: trials it gets.
        trials: frozen, by number.
        search: of the sweep; 0 is the first.
    """

    cell: Cell
    budget: int
    trials: list[FrozenTrial] = field(repr=False)
    search: int = 0

    def count(self, *states: TrialState) -> int:
        """Count the trials that are in one of the states."""
        return sum(trial.state in states for trial in self.trials)

    def in_words(self, *states: TrialState) -> list[str]:
        """The number of trials in each of the states, `3 running`, where there are any."""
        return [f"{count} {WORDS[state]}" for state in states if (count := self.count(state))]

    @property
    def ended(self) -> int:
        """Trials that will not change."""
        return sum(trial.state.is_finished() for trial in self.trials)

    @property
    def over(self) -> bool:
        """Return whether the budget is spent."""
        return self.ended >= self.budget

    def best(self, direction: Direction) -> FrozenTrial | None:
        """The best complete trial by the first objective, the earlier of equals; None without."""
        sign = 1 if direction == "maximize" else -1
        complete = [t for t in self.trials if t.state == TrialState.COMPLETE]
        return max(complete, key=lambda t: (sign * t.values[0], -t.number), default=None)


def pooled(standings: Iterable[CellProgress]) -> list[CellProgress]:
    """One standing a cell, of all its searches together."""
    by_cell: dict[str, list[CellProgress]] = {}
    for standing in standings:
        by_cell.setdefault(standing.cell.key.title, []).append(standing)
    return [CellProgress(of[0].cell, sum(s.budget for s in of), [t for s in of for t in s.trials])
            for of in by_cell.values()]
