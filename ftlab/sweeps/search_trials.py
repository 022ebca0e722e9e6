"""The trials of one search: asked for, given to the engine, ended."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from optuna.pruners import WilcoxonPruner
from optuna.trial import TrialState

from ftlab.errors import FtlabError
from ftlab.studies.dispatch import Job, JobOutcome, Jobs
from ftlab.studies.display import Display
from ftlab.studies.engine import OUTPUT, Engine
from ftlab.studies.plan import Plan, PlannedCell
from ftlab.studies.run_job import Workspace
from ftlab.studies.shared_process import LARGEST, gather, together_of
from ftlab.studies.study import Cell
from ftlab.sweeps.progress import CellProgress, Direction
from ftlab.sweeps.reconcile import catch_up
from ftlab.sweeps.sweep import Sweep
from ftlab.sweeps.trial_job import Trial, pack_folder, title_of
from ftlab.sweeps.trial_queue import ATTEMPTS, LeasedTrial, TrialQueue
from ftlab.tracking.metric_facts import to_tag
from ftlab.tracking.mirrored import Mirrors
from ftlab.tracking.tracker import Status, Tracker

AGAIN = 1.0  # seconds until trials that others hold are looked at again
PARTING = 5.0  # seconds that an outage of the storage may last once we stop


class SearchTrials(Jobs):
    """The trials of one search of a sweep as jobs: each seed of a trial is one."""

    def __init__(self, sweep: Sweep, made: Plan, board: TrialQueue, tracker: Tracker,
                 engine: Engine, results: Path, display: Display, better: Direction,
                 mirrors: Mirrors) -> None:
        self.sweep, self.board, self.tracker = sweep, board, tracker
        self.engine, self.display, self.better = engine, display, better
        self.planned = {p.cell.key.config: p for p in made.cells}
        work = (results / sweep.study.name / ".work" / sweep.name).absolute()
        self.space = Workspace(tracker, display, work, mirrors)
        self.failures: list[str] = []
        self.begun: deque[Trial] = deque()
        self.solitary: deque[LeasedTrial] = deque()
        self.until = time.monotonic() + (sweep.max_seconds or float("inf"))
        self.look = 0.0
        self.steps = isinstance(sweep.make_pruner(), WilcoxonPruner)
        self.parents: dict[str, str] = {}
        self.cells = [planned.cell.key for planned in made.cells]

    def open(self) -> None:
        """Make the store's parent runs, and good what an earlier command left unwritten."""
        # under the lock, or coordinators that start at once make two of each
        self.board.storage.exclusively(self._open_parents)
        catch_up(self.sweep, self.board, self.tracker, self.parents)

    def _open_parents(self) -> None:
        study = self.sweep.study
        self.tracker.open_study(study.name, {"mlflow.note.content": study.question})
        self.parents = {key.config: self.tracker.open_sweep(
            key, self.sweep.name, to_tag(self.planned[key.config].facts)) for key in self.cells}

    def next(self) -> Job | None:
        if self.begun:
            return self.begun.popleft()
        if self.solitary:
            return self._job([self.solitary.popleft()])
        if time.monotonic() < self.look:
            return None
        taken = self.board.take_together(self._room, more=time.monotonic() < self.until)
        if not taken:
            self.look = time.monotonic() + AGAIN
            return None
        return self._job(taken)

    def _job(self, taken: list[LeasedTrial]) -> Job:
        planned = self.planned[taken[0].cell.key.config]
        parent, to_come = self.parents[planned.cell.key.config], self._to_come(planned)
        makers = [partial(Trial, self.space, self.sweep, held, planned, parent, to_come,
                          self._report) for held in taken]
        try:
            return gather(pack_folder(self.space.work, taken[-1]), makers, self.display.note)
        except BaseException:
            for held in taken:
                self.board.release(held)
            raise

    def _room(self, cell: Cell) -> int:
        """Trials of a cell in one process: an equal share of them for each that goes on."""
        way = together_of(cell, self.sweep.study.shortcuts)
        if way is None or len(self.sweep.seeds) > 1:  # a trial's seeds follow each other
            return 1
        return min(LARGEST.get(way, 1), math.ceil(self.sweep.trials_of(cell) / self.engine.slots))

    def _to_come(self, planned: PlannedCell) -> int:
        """Count the runs of all searches that read the frozen prefix of a cell; at least one."""
        cells = sum(planned.shares_prefix(other) for other in self.planned.values())
        return max(1, cells) * self.sweep.trials * len(self.sweep.seeds) * self.sweep.searches

    def _report(self, trial: Trial, step: int, value: float) -> None:
        """Take an epoch's validation score."""
        if not self.steps and self.board.report(trial.held, step, value):
            self.engine.prune(trial.directory)

    def ended(self, run: Job, outcome: JobOutcome) -> None:
        assert isinstance(run, Trial)
        held, reason = run.held, outcome.reason
        if outcome.kind == "alone":
            run.drop(reason)
            self.solitary.append(held)
        elif outcome.kind == "done":
            self._seed_ended(run)
        elif outcome.kind == "again" and held.attempts < ATTEMPTS:
            self.board.release(held, attempted=True)
            self._lose(run, reason)
        else:
            reason += f", in {held.attempts} attempts" if outcome.kind == "again" else ""
            if self._close(run, "FAIL", self.board.fail(held, reason), reason):
                self.failures.append(f"{run.title}: {reason} (output: {run.directory / OUTPUT})")

    def _seed_ended(self, trial: Trial) -> None:
        board, held, means = self.board, trial.held, trial.means()
        count = len(trial.values)
        if trial.metrics["pruned"] or (
            self.steps and board.report(held, count, trial.values[-1][0])
        ):
            self._close(trial, "PRUNED", board.prune(held), "pruned", means)
        elif count < len(self.sweep.seeds):
            shutil.rmtree(trial.directory)
            trial.next_seed()
            self.begun.append(trial)
        else:
            self._close(trial, "COMPLETE", board.complete(held, means), "", means)

    def _close(self, trial: Trial, state: str, ours: bool, reason: str,
               values: Sequence[float] = ()) -> bool:
        """Record the end of a trial; False where it is no longer ours."""
        if ours:
            trial.close(state, reason, values)
        else:
            self._lose(trial, "another coordinator took the trial over; this result is refused")
        return ours

    def _lose(self, trial: Trial, reason: str) -> None:
        self.display.note(f"{trial.title}: {reason}")
        trial.drop(reason)

    def over(self) -> bool:
        return not self.begun and not self.solitary and (time.monotonic() > self.until or self.board.over())

    def tick(self) -> None:
        self.board.beat()

    def interrupted(self, why: str) -> None:
        self.board.storage.hurry(PARTING)
        for held in list(self.board.held.values()):
            try:
                self.board.release(held)
            except FtlabError as error:  # others take it over where they see us gone, a lease later
                self.display.note(f"{title_of(held)} could not be given back: {error.what}")
        for trial in self.begun:
            trial.interrupted(why)

    def close(self) -> None:
        """Record how far the search is, whatever has happened."""
        with contextlib.suppress(OSError):  # it holds others' trials, or a failed one's output
            self.space.work.rmdir()
        for standing in self.board.standing() if self.parents else ():
            self._end(standing)

    def _end(self, standing: CellProgress) -> None:
        """Record what the search of a cell found with its parent run."""
        status: Status = "FINISHED" if standing.over else "KILLED"
        metrics = {
            "trials.complete": float(standing.count(TrialState.COMPLETE)),
            "trials.pruned": float(standing.count(TrialState.PRUNED)),
            "trials.failed": float(standing.count(TrialState.FAIL)),
        }
        best = standing.best(self.better)
        tags = {"ftlab.sampler": type(self.sweep.make_sampler(0)).__name__}
        if best is not None:
            metrics["best"] = best.values[0]
            tags |= {"ftlab.best": json.dumps(best.params), "ftlab.best_trial": str(best.number)}
        self.tracker.end_sweep(self.parents[standing.cell.key.config], status, metrics, tags)
