"""A trial on its way: a run for each of its seeds, and its record in the store."""

from __future__ import annotations

import math
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from ftlab.studies.continuing import has_state, note_token, state_folders
from ftlab.studies.plan import PlannedCell
from ftlab.studies.run_folders import specification_of
from ftlab.studies.run_job import RunJob, Workspace
from ftlab.sweeps.sweep import Sweep
from ftlab.sweeps.trial_queue import LeasedTrial
from ftlab.tracking.tracker import Status

VALUES = "values_of_seeds_before"
"""Key of a later seed's specification."""
LONGEST = 100_000
"""Validations of a fit, where its settings do not tell how many there may be."""
STATUS: dict[str, Status] = {"COMPLETE": "FINISHED", "FAIL": "FAILED"}


class Trial(RunJob):
    """One trial; a job for each of its seeds in turn.

    Args:
        space: where it writes.
        sweep: its sweep.
        held: the trial.
        planned: its cell.
        parent: MLflow's run of the cell's search.
        runs_to_come: how many runs of the sweep read the frozen prefix of the cell.
        report: takes the trial, a step and the objective after each validation, where there is one
            objective; validations of later seeds follow those of the first.
        directory: in a shared process; a trial by itself has one of its own.
        share: of its process's time that counts as this trial's.

    Attributes:
        values: of each seed that has ended, of each objective.
    """

    def __init__(self, space: Workspace, sweep: Sweep, held: LeasedTrial, planned: PlannedCell,
                 parent: str, runs_to_come: int, report: Callable[[Trial, int, float], None],
                 directory: Path | None = None, share: float = 1.0) -> None:
        self.sweep, self.held, self._report = sweep, held, report
        self._work, self._runs_to_come = space.work, runs_to_come
        self.parts = len(sweep.seeds)
        self.values: list[list[float]] = []
        left = [*space.work.glob(f"{_folder(held)}-*")]
        # the seed under way, and what those before it gave
        under_way = next(filter(has_state, left), None)
        if under_way is not None:
            self.values = specification_of(under_way).get(VALUES, [])
        self.token = ""
        continued = self.next_seed(directory, left)
        for path in _packs(space.work, held):
            shutil.rmtree(path, ignore_errors=True)  # an earlier attempt's, which nobody holds
        config = sweep.config(held.cell, held.values, sweep.seeds[0])
        run_id = space.tracker.open_trial(
            parent, held.number, held.attempts, held.values, config, self.token)
        super().__init__(space, planned.of_seed(sweep.seeds[0]), title_of(held), run_id, share, {},
                         continued)

    def next_seed(self, directory: Path | None = None, left: Sequence[Path] = ()) -> bool:
        """Make the folder of the next seed; returns whether it goes on with that of an earlier attempt."""
        held, self.part = self.held, len(self.values)
        seed = self.sweep.seeds[self.part]
        self.remarks = {}
        config = self.sweep.config(held.cell, held.values, seed)
        tracked = self.prepare(
            directory or self._work / f"{_folder(held)}-{held.token}-seed{seed}",
            {**config, "runs_to_come": self._runs_to_come,
             **({VALUES: self.values} if self.values else {})}, left)
        self.token = tracked or self.token or uuid4().hex
        note_token(self.directory, self.token)
        return bool(tracked)

    def validated(self, metrics: Mapping[str, float], number: int) -> None:
        objective = self.sweep.objectives[0]
        if len(self.sweep.objectives) == 1 and objective in metrics:
            most = most_validations(self.held.cell.trainer)
            self._report(self, self.part * most + number, metrics[objective])

    def lacking(self) -> str:
        for name in self.sweep.objectives:
            if name not in self.metrics:
                return f"the run measured no {name}"
            if not math.isfinite(self.metrics[name]):
                return f"{name} is {self.metrics[name]}"
        return ""

    def means(self) -> list[float]:
        """Take the last seed's values; the mean of each objective over the seeds so far."""
        self.values.append([self.metrics[name] for name in self.sweep.objectives])
        return [statistics.fmean(values) for values in zip(*self.values, strict=True)]

    def close(self, state: str, reason: str = "", values: Sequence[float] = ()) -> None:
        """Record the end of the trial, as Optuna calls it, with the value of each objective."""
        self.metrics |= dict(zip(self.sweep.objectives, values, strict=False))
        self._log_last()
        if state == "FAIL":
            for folder in state_folders(self.directory):  # nobody tries it again
                shutil.rmtree(folder)
            if self.directory.is_dir():  # not swept away by someone
                self.tracker.log_artifacts(self.run_id, self.directory)
        else:
            shutil.rmtree(self.directory, ignore_errors=True)
        self.tracker.end_run(self.run_id, STATUS.get(state, "KILLED"), reason)
        self.mirrored.end(STATUS.get(state, "KILLED"), self.metrics)
        gave = self.metrics if state != "FAIL" else {}
        # last: what lacks it is made good by the next command
        self.tracker.settle(self.run_id, state, {
            name: gave[name] for name in self.sweep.objectives if name in gave})
        self.show(state, self.sweep.objectives[0], reason)

    def _log_last(self) -> None:
        # The best epoch's value would be one more point of its curve; `settle` keeps what counts.
        last = {name: self.metrics[name] for name in self.metrics.keys() - self.curves}
        self.tracker.log_metrics(self.run_id, last, 0, int(time.time() * 1000))

    def drop(self, reason: str) -> None:
        self._log_last()
        super().drop(reason)

    def interrupted(self, why: str) -> None:
        super().interrupted(why)
        self.tracker.settle(self.run_id, "LOST", {})


def most_validations(trainer: Mapping[str, Any]) -> int:
    """The most validations of a fit that its settings tell of without the data."""
    # at least one update is in each epoch
    most: int = max(trainer["max_epochs"], trainer["min_steps"] or 0, trainer["max_steps"] or 0)
    every = trainer["validate_every"]
    if every is None:
        return most
    if isinstance(every, float):
        return most * math.ceil(1 / every)
    return trainer["max_steps"] // every + 1 if trainer["max_steps"] else LONGEST


def title_of(held: LeasedTrial) -> str:
    """The name of a trial for people."""
    return f"{held.cell.key.title}, trial {held.number}"


def pack_folder(work: Path, last: LeasedTrial) -> Path:
    """The folder of trials that share a process; whoever takes the last one over removes it."""
    return work / f"{last.cell.key.technique}-{last.cell.key.config}-together-{last.number}-{last.token}"


def _packs(work: Path, last: LeasedTrial) -> list[Path]:
    """Folders of packs before this attempt."""
    now = pack_folder(work, last)
    same = now.name.rpartition("-")[0]
    return [left for left in work.glob(f"{same}-*") if left != now]


def _folder(held: LeasedTrial) -> str:
    return f"{held.cell.key.technique}-{held.cell.key.config}-{held.number}"
