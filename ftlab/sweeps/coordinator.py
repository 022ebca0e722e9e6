"""Runs a sweep: asks for trials, gives them to the engine, and decides what becomes of them."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ftlab.errors import InputError
from ftlab.studies.coordinator import FLUSH, need
from ftlab.studies.dispatch import Job, JobOutcome, Jobs, closing, dispatch, engaged
from ftlab.studies.display import Display
from ftlab.studies.engine import Engine
from ftlab.studies.plan import as_stored, plan, writable
from ftlab.studies.study_tasks import StudyTasks
from ftlab.sweeps.check_sampler import rehearse
from ftlab.sweeps.display import SweepDisplay
from ftlab.sweeps.progress import CellProgress, Direction
from ftlab.sweeps.search_trials import SearchTrials
from ftlab.sweeps.storage import Storage
from ftlab.sweeps.sweep import Sweep
from ftlab.sweeps.trial_job import Trial
from ftlab.sweeps.trial_queue import LEASE, TrialQueue
from ftlab.tracking.mirrored import Mirrors
from ftlab.tracking.mirrors.base import installed
from ftlab.tracking.spool import FOLDER as UNSENT
from ftlab.tracking.tracker import Tracker


@dataclass
class SweepOutcome:
    """The outcome of a sweep.

    Attributes:
        standings: of every cell in every search.
        failures: one line each: which trial, why, where its output is.
        over: whether every budget is spent; else time was up.
        better: direction of the first objective.
    """

    standings: list[CellProgress]
    failures: list[str] = field(default_factory=list)
    over: bool = True
    better: Direction = "maximize"


def run_sweep(
    sweep: Sweep,
    tracking_uri: str | None = None,
    results: str | Path = "results",
    display: Display | None = None,
    workers: int | None = None,
    timeout: float | None = None,
    lease: float = LEASE,
    engine: Engine | None = None,
    mirror: Sequence[str] | None = None,
) -> SweepOutcome:
    """Do every trial of a sweep that is not done yet, beside other coordinators of the same storage.

    Args:
        sweep: from `load_sweep`.
        tracking_uri: MLflow's store; None as in `Tracker`.
        results: folder in whose `<study>/.work` trials write while they go on.
        display: shows progress; None for the default one.
        workers: trials at a time; None for as many as the machine has room for.
        timeout: seconds without a sign of life after which a trial fails.
        lease: seconds without a sign of life after which another coordinator counts as gone.
        engine: executes the trials, and is closed at the end; None for this machine.
        mirror: names of other trackers that are shown the trials; None for the study's.

    Raises:
        InputError: the sweep cannot run; no trial was begun.
        Interrupted: by Ctrl-C or SIGTERM.
    """
    with engaged(engine, need(sweep.study), workers, timeout) as (executor, signals):
        kinds = installed(sweep.study.mirror if mirror is None else mirror)
        made = plan(sweep.study, sweep.measured)
        better = directions(sweep)
        rehearse(sweep, better)
        writable(Path(results))
        tracker = Tracker(tracking_uri, unsent=Path(results) / sweep.study.name / UNSENT)
        made = as_stored(made, tracker.stored_params(sweep.study.name))
        stands_on = [f for p in made.cells for f in (p.data_fingerprint, p.backbone_fingerprint)]
        sweep = replace(sweep, study=made.study).on(stands_on)
        storage = Storage(sweep.storage)
        boards = [TrialQueue(search, storage, better, lease) for search in sweep.each]

        def beat() -> None:
            for board in boards:
                board.beat()

        storage.waiting = beat  # who waits for another's lock lives all the same, in every search
        display = display or SweepDisplay(lambda: _searched(_standings(boards)), better[0])
        storage.note = display.note
        for note in (*made.notes, *sweep.notes):
            display.note(note)
        signals.deferred = True
        mirrors = Mirrors(kinds, Path(results))
        searches = _Searches([
            SearchTrials(board.sweep, made, board, tracker, executor, Path(results), display, better[0],
                         mirrors)
            for board in boards], tracker, display)
        with closing(searches.close, display.note), closing(lambda: mirrors.close(display.note), display.note):
            searches.open(executor.slots)
            dispatch(executor, searches, signals)
        standings = _standings(boards)
        return SweepOutcome(standings, [line for of in searches.members for line in of.failures],
                            all(standing.over for standing in standings), better[0])


def _standings(boards: Sequence[TrialQueue]) -> list[CellProgress]:
    return [standing for board in boards for standing in board.standing()]


def _searched(standings: Sequence[CellProgress]) -> list[CellProgress]:
    """Those that get trials."""
    return [standing for standing in standings if standing.budget]


def directions(sweep: Sweep) -> list[Direction]:
    """Direction of each objective: costs are minimised, a metric as its task states.

    Raises:
        InputError: a task has no such metric, or it is better higher in one and lower in another.
    """
    tasks = list(StudyTasks(sweep.study).values())
    result: list[Direction] = []
    for name in sweep.objectives:
        metric = name.removeprefix("val/")
        upwards = {metric != name and task.higher_is_better(metric) for task in tasks}
        if len(upwards) > 1:
            raise InputError(f"{sweep.place / 'objective'}: more {name} is better in one task of the "
                             "study and worse in another", "sweep them apart")
        result.append("maximize" if upwards.pop() else "minimize")
    return result


class _Searches(Jobs):
    """A sweep's searches as one source of jobs.

    A later one begins where an earlier one has nothing to give: what is interrupted has whole
    searches, and no worker waits for the last trials of one.
    """

    def __init__(self, members: Sequence[SearchTrials], tracker: Tracker, display: Display) -> None:
        self.members, self.tracker, self.display = members, tracker, display
        self.flushed = 0.0

    def open(self, slots: int) -> None:
        for member in self.members:
            member.open()
        standings = _standings([member.board for member in self.members])
        waiting = Counter({s.cell.key.technique: 0 for s in standings})
        for s in standings:
            waiting[s.cell.key.technique] += max(0, s.budget - s.ended)
        self.display.start(self.members[0].sweep.name, sum(s.ended for s in standings), waiting, slots)

    def next(self) -> Job | None:
        return next(filter(None, (member.next() for member in self.members)), None)

    def ended(self, run: Job, outcome: JobOutcome) -> None:
        assert isinstance(run, Trial)
        self.members[run.sweep.search].ended(run, outcome)

    def over(self) -> bool:
        return all(member.over() for member in self.members)

    def tick(self) -> None:
        for member in self.members:
            member.tick()
        self.display.idle()
        if time.monotonic() - self.flushed > FLUSH:
            self.flushed = time.monotonic()
            self.tracker.flush()

    def interrupted(self, why: str) -> None:
        for member in self.members:
            member.interrupted(why)

    def close(self) -> None:
        """Leave the store and the terminal in order, whatever has happened."""
        self.display.close()
        try:
            for member in self.members:
                member.close()
        finally:
            self.tracker.close()
        with contextlib.suppress(OSError):  # it holds others' trials, or a failed one's output
            self.members[0].space.work.parent.rmdir()
