"""Runs a study: its runs are trials with nothing to search, held by leases as trials are."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from ftlab.errors import FtlabError, InputError
from ftlab.studies.continuing import tidy
from ftlab.studies.coordinator import StudyRuns, need
from ftlab.studies.dispatch import closing, dispatch, engaged
from ftlab.studies.display import Display
from ftlab.studies.engine import Engine
from ftlab.studies.plan import Plan, as_stored, plan
from ftlab.studies.run_job import StudyOutcome
from ftlab.studies.run_queue import Claim, Holder, Queue
from ftlab.studies.study import Study
from ftlab.sweeps.leases import Lease, Leases
from ftlab.sweeps.storage import OUTAGE, Storage
from ftlab.sweeps.trial_queue import LEASE
from ftlab.tracking.mirrored import Mirrors
from ftlab.tracking.mirrors.base import installed
from ftlab.tracking.spool import FOLDER as UNSENT
from ftlab.tracking.tracker import Tracker

PARTING = 5.0  # seconds that an outage of the storage may last once we stop
_RUN = "ftlab.run"
T = TypeVar("T")


def run_study(
    study: Study,
    tracking_uri: str | None = None,
    results: str | Path = "results",
    display: Display | None = None,
    workers: int | None = 1,
    timeout: float | None = None,
    engine: Engine | None = None,
    approve: Callable[[Plan], None] | None = None,
    storage: str | None = None,
    lease: float = LEASE,
    mirror: Sequence[str] | None = None,
) -> StudyOutcome:
    """Do every run of a study that is not finished yet, beside other commands of the same study.

    Args:
        study: from `load_study`.
        tracking_uri: MLflow's store; None as in `Tracker`.
        results: folder in whose `<study>/.work` runs write while they go on.
        display: shows progress; None for the default one.
        workers: runs at a time; several on one machine disturb each other's measured times. None
            for as many as the machine has room for.
        timeout: seconds without a sign of life after which a run fails.
        engine: executes the runs, and is closed at the end; None for this machine.
        approve: looks at the plan before anything is written, and raises where it is not to be.
        storage: a journal file or `postgresql://...` that says who does which run, the same for
            all commands that share the study; None for `.queue/<study>.journal` in the results.
        lease: seconds without a sign of life after which another command counts as gone.
        mirror: names of other trackers that are shown the runs; None for the study's.

    Raises:
        InputError: the study cannot run; nothing was written.
        FtlabError: another command holds all that is left.
        Interrupted: by Ctrl-C or SIGTERM.
    """
    display, folder = display or Display(), Path(results) / study.name
    with engaged(engine, need(study), workers, timeout) as (executor, signals):
        kinds = installed(study.mirror if mirror is None else mirror)
        made = plan(study)
        if approve is not None:
            approve(made)
        tracker, work = Tracker(tracking_uri, unsent=folder / UNSENT), folder / ".work"
        made = as_stored(made, tracker.stored_params(study.name))
        made.check_space([work])
        for note in made.notes:
            display.note(note)
        signals.deferred = True
        where = storage or str(_beside(Path(results) / ".queue") / f"{study.name}.journal")
        queue = RunQueue(study.name, Storage(where), lease)
        with closing(queue.close, display.note):
            mirrors = Mirrors(kinds, Path(results))
            runs = StudyRuns(made, tracker, queue, work.absolute(), display, executor.slots, mirrors)
            with closing(runs.close, display.note), closing(lambda: mirrors.close(display.note), display.note):
                dispatch(executor, runs, signals)
            queue.exclusively(lambda: None if queue.held() else tidy(work, runs.outcome.failures))
        return runs.outcome


def _beside(folder: Path) -> Path:
    """The folder of queues beside the studies' results, which git leaves out."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".gitignore").write_text("*\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error}",
                         "make it writable, or name another folder: --results") from error
    return folder


class RunQueue(Queue):
    """The runs of a study as trials of one search, which has nothing to search.

    Args:
        study: its name.
        storage: of the leases; closed with the queue.
        lease: seconds without a beat after which another command counts as gone.
    """

    def __init__(self, study: str, storage: Storage, lease: float) -> None:
        self._storage = storage
        self._search = storage.exclusively(lambda: optuna.create_study(
            storage=storage.backend, study_name=f"runs of {study}", load_if_exists=True))
        self._leases = Leases(storage, self._search, lease)
        self._seen: dict[str, int] = {}
        self._ids: dict[str, int] = {}  # of the trials that we hold
        self._stopping = self._out = False
        self._held: dict[str, Claim] = {}
        self._closed = threading.Event()
        # apart from the loop, which a large upload to the tracking store keeps for minutes
        self._heart = threading.Thread(target=self._beat, args=(lease / 4,), daemon=True)
        self._heart.start()

    def _beat(self, pause: float) -> None:
        while not self._closed.wait(pause):
            try:
                self._leases.show()
            except (*OUTAGE, FtlabError):
                continue  # the loop speaks of it where it matters

    def exclusively(self, act: Callable[[], T]) -> T:
        return self._storage.exclusively(act)

    def _trials(self) -> dict[str, FrozenTrial]:
        """The last trial of each run."""
        return {trial.user_attrs[_RUN]: trial
                for trial in self._search.get_trials(deepcopy=False) if _RUN in trial.user_attrs}

    def look(self, runs: Iterable[str]) -> None:
        trials = self._storage.patiently(self._trials)
        for run in runs:
            held = Lease.of(trials[run]) if run in trials else Lease()
            # whoever holds it now may end it before we read the tracking store, or after
            self._seen[run] = held.token if held.owner is None else -1

    def claim(self, runs: Sequence[str], choose: Callable[[list[str]], list[str]]) -> list[Claim]:
        def locked() -> list[Claim]:
            trials, owners = self._trials(), self._leases.owners()
            free = [run for run in runs if run not in trials or trials[run].state.is_finished()
                    or self._leases.free(trials[run], owners)]
            return [self._grant(run, trials.get(run)) for run in choose(free)] if free else []

        claims = self._storage.exclusively(locked)
        for claim in claims:
            self._held[claim.run] = claim
            self._seen[claim.run] = claim.token
            self._leases.add(self._ids[claim.run], claim.token)
        return claims

    def _grant(self, run: str, trial: FrozenTrial | None) -> Claim:
        before = Lease() if trial is None else Lease.of(trial)
        if trial is None or trial.state.is_finished():
            backend = self._storage.backend
            trial = backend.get_trial(backend.create_new_trial(
                self._search._study_id, create_trial(state=TrialState.RUNNING, user_attrs={_RUN: run})))
            Lease(None, before.token).store(backend, trial._trial_id)
            trial = backend.get_trial(trial._trial_id)
        self._ids[run] = trial._trial_id
        token = self._leases.grant(trial).token
        return Claim(run, token, before.token != self._seen.get(run, 0))

    def ours(self, claim: Claim) -> bool:
        trial_id = self._ids[claim.run]
        return self._storage.exclusively(
            lambda: self._leases.ours(self._storage.backend.get_trial(trial_id), claim.token))

    def release(self, claim: Claim, done: bool = False) -> None:
        trial_id, backend = self._ids[claim.run], self._storage.backend

        def locked() -> None:
            trial = backend.get_trial(trial_id)
            if trial.state.is_finished() or not self._leases.ours(trial, claim.token):
                return
            Lease(None, claim.token).store(backend, trial_id)
            if done:  # ended ones are read once, the others at each look
                backend.set_trial_state_values(trial_id, TrialState.COMPLETE, [0.0])

        if self._out:
            return  # others take it over where they see us gone, a lease later
        try:
            self._storage.exclusively(locked)
        except FtlabError:
            self._out = self._stopping
            raise
        if claim.shared and not done:
            self._seen[claim.run] = -1  # somebody may still have done it
        self._held.pop(claim.run, None)
        self._leases.forget(trial_id, claim.token)

    def held(self) -> dict[str, Holder]:
        trials, owners = self._storage.patiently(lambda: (self._trials(), self._leases.owners()))
        leases = {run: Lease.of(trial) for run, trial in trials.items()}
        return {run: self._leases.holder(lease.owner, owners) for run, lease in leases.items()
                if lease.owner is not None and lease.owner != self._leases.owner.name}

    def beat(self) -> None:
        self._leases.beat()

    def hurry(self) -> None:
        self._stopping = True
        self._storage.hurry(PARTING)

    def close(self) -> None:
        self._closed.set()
        self._heart.join(PARTING)
        self.hurry()
        # those that cannot be given back are taken over where others see us gone
        with contextlib.suppress(FtlabError):
            for claim in list(self._held.values()):
                self.release(claim)
        self._storage.close()
