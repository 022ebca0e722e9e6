"""Shows a sweep while it runs: all its trials, whoever does them, and the best so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from optuna.trial import TrialState
from rich.progress import TaskID

from ftlab.studies.display import Display
from ftlab.sweeps.progress import CellProgress, Direction, pooled
from ftlab.terminal import Terminal

LOOK = 5.0  # seconds until the trials of other coordinators are looked at again


class SweepDisplay(Display):
    """Follows a sweep.

    Args:
        look: gives the present standings.
        direction: of the first objective.
        console: where to show; bars are drawn only on a terminal.
    """

    noun = "trials"

    def __init__(self, look: Callable[[], list[CellProgress]], direction: Direction,
                 console: Terminal | None = None) -> None:
        super().__init__(console)
        self.look, self.direction = look, direction
        self.cells: dict[str, TaskID] = {}
        self.looked = 0.0

    def start(self, name: str, done: int, waiting: Mapping[str, int], slots: int = 1) -> None:
        super().start(name, done, waiting, slots)
        self.own_slots = slots
        self._look()

    def run_ended(self, title: str, status: str, seconds: float, score: str, reason: str,
                  metrics: Mapping[str, float] | None = None) -> None:
        if status == "PRUNED":  # not a fault, so not shown as one
            score, reason = f"pruned at {score}", ""
        super().run_ended(title, status, seconds, score, reason, metrics)

    def idle(self) -> None:
        if time.monotonic() - self.looked > LOOK:
            self._look()
        super().idle()

    def _count(self, technique: str, status: str, seconds: float | None) -> None:
        super()._count(technique, status, seconds)
        self._look()

    def _look(self) -> None:
        standings = pooled(self.look())
        self.looked = time.monotonic()
        self.done = sum(s.ended for s in standings)
        self.failed = sum(s.count(TrialState.FAIL) for s in standings)
        others = sum(s.count(TrialState.RUNNING) for s in standings) - len(self.running)
        shares = sum(run.share for run in self.running.values())
        self.slots = max(self.own_slots, others + round(shares))
        self.clock.waiting = dict.fromkeys(self.clock.waiting, 0)
        pairs = {(s.cell.key.dataset, s.cell.key.backbone) for s in standings}
        for s in standings:
            key = s.cell.key
            self.clock.waiting[key.technique] += max(0, s.budget - s.ended)
            if key.title not in self.cells:
                name = key.technique if len(pairs) == 1 else key.title
                self.cells[key.title] = self.bars.add_task(f"  {name}", total=s.budget, state="")
            self.bars.update(self.cells[key.title], completed=s.ended, state=self._counts(s))

    def _counts(self, standing: CellProgress) -> str:
        """`3 of 16, 1 running, 1 pruned, best 0.9432`."""
        parts = [f"{standing.ended} of {standing.budget}"]
        parts += standing.in_words(TrialState.RUNNING, TrialState.PRUNED, TrialState.FAIL)
        best = standing.best(self.direction)
        if best is not None:
            parts.append(f"best {best.values[0]:.4f}")
        return ", ".join(parts)
