"""The trials of a sweep, as all its coordinators share them: suggested, leased, ended, re-queued.

Every decision that depends on the present state is made under the storage's lock, and begins with
what it finds: a try before it may have succeeded although an outage hid it.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.study import Study as Search
from optuna.trial import FrozenTrial, TrialState

from ftlab.errors import InputError
from ftlab.redaction import redact
from ftlab.studies.study import Cell
from ftlab.sweeps.leases import Lease, Leases
from ftlab.sweeps.parallel_draws import independent
from ftlab.sweeps.progress import CellProgress, Direction
from ftlab.sweeps.storage import Storage
from ftlab.sweeps.suggest import ask, complete
from ftlab.sweeps.sweep import Sweep

ATTEMPTS = 3
"""How often a trial is tried whose process vanishes."""
LEASE = 60.0
"""Seconds without a beat after which a coordinator counts as gone."""
_DIGEST = "ftlab.sweep"


@dataclass
class LeasedTrial:
    """A trial that this coordinator holds.

    Attributes:
        cell: that it tries.
        number: of the trial in its cell; 0 is the study's own setting.
        trial_id: Optuna's.
        values: of the hyperparameters.
        token: of its lease.
        attempts: begun so far, this one included.
    """

    cell: Cell
    number: int
    trial_id: int
    values: dict[str, Any]
    token: int
    attempts: int


class TrialQueue:
    """A sweep's trials.

    Args:
        sweep: checked.
        storage: where they live.
        directions: `maximize` or `minimize` for each objective.
        lease: seconds without a beat after which another coordinator counts as gone.

    Raises:
        InputError: the storage holds a different sweep of this name.
    """

    def __init__(self, sweep: Sweep, storage: Storage, directions: Sequence[Direction],
                 lease: float = LEASE) -> None:
        self.sweep, self.storage = sweep, storage
        self._budgets = [sweep.trials_of(cell) for cell in sweep.study.cells]
        self._searches: dict[str, Search] = {}
        storage.exclusively(lambda: self._open(list(directions)))
        roll = self._searches[sweep.study.cells[0].key.config]
        self._leases = Leases(storage, roll, lease)
        self.owner, self.beat = self._leases.owner, self._leases.beat
        self.held: dict[int, LeasedTrial] = {}  # by Optuna's id

    def _open(self, directions: list[Direction]) -> None:
        self._check(directions)
        for cell in self.sweep.study.cells:
            search = optuna.create_study(
                storage=self.storage.backend, study_name=f"{self.sweep.name}: {cell.key.title}",
                pruner=self.sweep.make_pruner(), directions=directions, load_if_exists=True,
            )
            if _DIGEST not in search.user_attrs:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ExperimentalWarning)  # names for viewers alone
                    search.set_metric_names(list(self.sweep.objectives))
                search.set_user_attr(_DIGEST, self.sweep.digest)
            self._searches[cell.key.config] = search

    def _check(self, directions: list[Direction]) -> None:
        """Before anything is written: a changed study may share no cell with the old one."""
        for search in self.storage.backend.get_all_studies():
            if not search.study_name.startswith(f"{self.sweep.name}: "):
                continue
            same = search.user_attrs.get(_DIGEST, self.sweep.digest) == self.sweep.digest
            if not same or [d.name.lower() for d in search.directions] != directions:
                raise InputError(
                    f"storage {redact(self.storage.where)} holds another sweep called "
                    f"{self.sweep.name}: its study, spaces, seeds, objective, sampler or pruner "
                    "differ", "give this sweep another name (name: ...) or another storage",
                )

    def _trials(self, cell: Cell) -> list[FrozenTrial]:
        return self._searches[cell.key.config].get_trials(deepcopy=False)

    def _standing(self) -> list[CellProgress]:
        return [CellProgress(cell, budget, self._trials(cell), self.sweep.search)
                for cell, budget in zip(self.sweep.study.cells, self._budgets, strict=True)]

    def standing(self) -> list[CellProgress]:
        """Every cell's trials."""
        return self.storage.patiently(self._standing)

    def over(self) -> bool:
        """Return whether every cell's budget is spent."""
        return all(standing.over for standing in self.standing())

    def take(self, more: bool = True) -> LeasedTrial | None:
        """A trial to try: one that nobody works at any more, else a new one.

        The cell with the fewest trials comes first, so that all advance alike.

        Args:
            more: whether new ones may be asked for.
        """
        taken = self.take_together(lambda cell: 1, more)
        return taken[0] if taken else None

    def take_together(self, room: Callable[[Cell], int], more: bool = True) -> list[LeasedTrial]:
        """As `take`, several of one cell: new ones as far as no result could change what is drawn.

        Args:
            room: how many of a cell's trials fit into one process.
            more: whether new ones may be asked for.
        """
        taken = self.storage.exclusively(lambda: self._take(more, room))
        for held in taken:
            self._leases.add(held.trial_id, held.token)
            self.held[held.trial_id] = held
        return taken

    def _take(self, more: bool, room: Callable[[Cell], int]) -> list[LeasedTrial]:
        standings = [standing for standing in self._standing() if standing.budget]
        owners = self._leases.owners()
        for standing in standings:
            free = [trial for trial in standing.trials
                    if trial.state == TrialState.RUNNING and self._leases.free(trial, owners)]
            if free:
                return self._take_over(standing.cell, free[: room(standing.cell)])
        open_ = [s for s in standings
                 if s.count(TrialState.WAITING) or len(s.trials) < s.budget]
        if not more or not open_:
            return []
        least = min(open_, key=lambda s: len(s.trials) - s.count(TrialState.WAITING))
        return self._ask(least, room(least.cell))

    def _take_over(self, cell: Cell, free: Sequence[FrozenTrial]) -> list[LeasedTrial]:
        """Trials whose attempts count against them share no process."""
        search = self._searches[cell.key.config]
        suspect = [Lease.of(trial).attempts > 0 and Lease.of(trial).owner is None for trial in free]
        together = free[:1] if suspect[0] else [t for t, s in zip(free, suspect, strict=True) if not s]
        return [self._grant(cell, complete(search, self.sweep, cell, trial)) for trial in together]

    def _ask(self, standing: CellProgress, room: int) -> list[LeasedTrial]:
        search, cell = self._searches[standing.cell.key.config], standing.cell
        begun = [t for t in standing.trials if t.state != TrialState.WAITING]
        count = max(1, min(room, standing.budget - len(begun),
                           independent(self.sweep.make_sampler(0), begun)))
        return [self._grant(cell, ask(search, self.sweep, cell)) for _ in range(int(count))]

    def _grant(self, cell: Cell, trial: FrozenTrial) -> LeasedTrial:
        lease = self._leases.grant(trial)
        return LeasedTrial(cell, trial.number, trial._trial_id, dict(trial.params), lease.token,
                    lease.attempts)

    def report(self, held: LeasedTrial, step: int, value: float) -> bool:
        """Store an intermediate value; whether to stop: pruned, or no longer ours."""
        search = self._searches[held.cell.key.config]

        def act(trial: FrozenTrial) -> bool:
            self.storage.backend.set_trial_intermediate_value(held.trial_id, step, value)
            if trial.last_step is not None and step < trial.last_step:
                return False  # an attempt before this one came further, and was not pruned here
            trial = copy.copy(trial)  # as it is stored now; to read it again costs seven queries
            trial.intermediate_values = {**trial.intermediate_values, step: value}
            return search.pruner.prune(search, trial)

        return self._if_ours(held, act, otherwise=True)

    def complete(self, held: LeasedTrial, values: Sequence[float]) -> bool:
        """End a trial with its values; False where it is no longer ours."""
        for name, value in zip(self.sweep.objectives, values, strict=True):
            if not math.isfinite(value):
                return self.fail(held, f"{name} is {value}")
        return self._end(held, TrialState.COMPLETE, list(values), "")

    def prune(self, held: LeasedTrial) -> bool:
        """End a trial whose last report counts as its value; False where it is no longer ours."""
        return self._end(held, TrialState.PRUNED, None, "pruned")

    def fail(self, held: LeasedTrial, reason: str) -> bool:
        """End a trial that gave no value; False where it is no longer ours."""
        return self._end(held, TrialState.FAIL, None, reason)

    def _end(self, held: LeasedTrial, state: TrialState, values: list[float] | None,
              reason: str) -> bool:
        # not by Study.tell: it lets samplers that have tried everything stop Study.optimize,
        # which fails where there is none
        def act(trial: FrozenTrial) -> bool:
            backend, given = self.storage.backend, values
            if reason:
                backend.set_trial_user_attr(held.trial_id, "ftlab.reason", reason)
            if state == TrialState.PRUNED and trial.last_step is not None:
                last = trial.intermediate_values[trial.last_step]
                given = None if math.isnan(last) else [last]
            backend.set_trial_state_values(held.trial_id, state, given)
            return True

        done = self._if_ours(held, act, ended=True)
        self._forget(held)
        return done

    def release(self, held: LeasedTrial, attempted: bool = False) -> bool:
        """Give a trial back, to be taken again by whoever comes; False where it is not ours.

        Args:
            held: the trial.
            attempted: whether this attempt counts: its process vanished, not the coordinator.
        """
        def act(trial: FrozenTrial) -> bool:
            attempts = held.attempts - (not attempted)
            Lease(None, held.token, attempts).store(self.storage.backend, held.trial_id)
            return True

        done = self._if_ours(held, act)
        self._forget(held)
        return done

    def _forget(self, held: LeasedTrial) -> None:
        self.held.pop(held.trial_id, None)
        self._leases.forget(held.trial_id, held.token)

    def _if_ours(self, held: LeasedTrial, act: Callable[[FrozenTrial], bool], ended: bool = False,
                 otherwise: bool = False) -> bool:
        """`act(trial)` under the lock while the trial runs and is ours, else `otherwise`.

        `ended`, where it has ended under our own lease: we ended it, in a try that seemed to fail.
        """
        def locked() -> bool:
            trial = self.storage.backend.get_trial(held.trial_id)
            if not self._leases.ours(trial, held.token):
                return otherwise
            return act(trial) if trial.state == TrialState.RUNNING else ended

        return self.storage.exclusively(locked)
