"""A study's runs that other commands do: who holds them, and how they ended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ftlab.errors import FtlabError
from ftlab.studies.display import Display
from ftlab.studies.run_queue import Holder, Queue, is_of
from ftlab.studies.study import Cell
from ftlab.tracking.records import CellRecord, RunRecord
from ftlab.tracking.tracker import Tracker
from ftlab.wording import counted


class HeldElsewhere:
    """The other commands of a study.

    Args:
        study: its name.
        queue: says who works at what.
        tracker: says what came of it.
        display: shows who holds runs.
    """

    def __init__(self, study: str, queue: Queue, tracker: Tracker, display: Display) -> None:
        self._study, self._queue, self._tracker, self._display = study, queue, tracker, display
        self._attempts: dict[tuple[str, int], int] = {}
        self._noted = ""

    def begin(self, records: Iterable[CellRecord]) -> None:
        """Take note of how the store holds the study's cells at the beginning."""
        self._attempts = {(run.cell_id, run.seed): run.attempt
                          for record in records for run in record.runs}

    def greet(self, runs: Iterable[str]) -> None:
        """Say who works at the study already."""
        held = self._queue.held()
        living = [held[run] for run in runs if run in held and held[run].lives]
        if living:
            suffer = any(holder.here for holder in living)
            self._display.note(
                f"{counted(len(living), 'run')} held by {_titles(living)}; this command does others"
                + (", and each slows the other's measured times" if suffer else ""))

    def ended(self, cell_id: str, seed: int) -> RunRecord | None:
        """The attempt that ended a run since we began; None where it is still to do.

        Raises:
            FtlabError: the tracking store does not answer.
        """
        self._tracker.send_kept()  # who did it may have died before the store took its end
        before = self._attempts.get((cell_id, seed), 0)
        for run in self._tracker.latest_runs(cell_id):
            failed = run.status == "FAILED" and run.attempt > before
            if run.seed == seed and (failed or run.status == "FINISHED"):
                return run
        return None

    def wait(self, runs: Sequence[str], helped: bool) -> None:
        """Say once who holds the runs that are left.

        Args:
            runs: those that we wait for.
            helped: we have done a part of the study.

        Raises:
            FtlabError: commands that live hold them all, and we have done nothing.
        """
        held = self._queue.held()
        holders = [held[run] for run in runs if run in held]
        if len(holders) < len(runs):
            return  # one has just come free
        who = _titles(holders)
        if not helped and all(holder.lives for holder in holders):
            raise FtlabError(
                f"study {self._study}: nothing to do here: {counted(len(runs), 'run')} left, held by {who}",
                "wait for its end, or end it; then the same command does what is left")
        if who != self._noted:
            self._noted = who
            self._display.note(f"waiting for {counted(len(runs), 'run')}, held by {who}")

    def work(self, cell: Cell | None = None) -> bool:
        """Return whether another command holds a run of a cell, or any; False in an outage."""
        try:
            held = self._queue.held()
        except FtlabError:
            return False
        return any(cell is None or is_of(run, cell) for run in held)


def _titles(holders: Iterable[Holder]) -> str:
    return " and ".join(sorted({holder.title for holder in holders}))
