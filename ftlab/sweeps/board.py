"""The trials of a sweep, as all its coordinators share them: asked, leased, told, re-queued.

A trial belongs to the coordinator that its lease names. A coordinator shows that it lives by a
beat; where one is gone, another takes its trials over under the next token, and what the first
one may still say of them is refused (fencing). Every decision that depends on the present state
is made under the storage's lock.
"""

from __future__ import annotations

import hashlib
import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.study import Study as Search
from optuna.trial import FrozenTrial, Trial, TrialState

from ftlab.errors import InputError
from ftlab.studies.study import Cell
from ftlab.sweeps.owner import Owner, Watch
from ftlab.sweeps.space import own_values
from ftlab.sweeps.standing import Direction, Standing
from ftlab.sweeps.storage import Storage
from ftlab.sweeps.sweep import Sweep

ATTEMPTS = 3
"""How often a trial is tried whose process vanishes."""
LEASE = 60.0
"""Seconds without a beat after which a coordinator counts as gone."""


@dataclass
class Held:
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


class Board:
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
        self.sweep, self.storage, self.lease = sweep, storage, lease
        self.owner, self._watch = Owner.this(), Watch(lease)
        self._outages = storage.outages
        self._beat, self._beaten = 0, 0.0
        self._searches: dict[str, Search] = {}
        storage.exclusively(lambda: self._open(directions))
        self.beat(now=True)

    def _open(self, directions: Sequence[Direction]) -> None:
        for cell in self.sweep.study.cells:
            search = optuna.create_study(
                storage=self.storage.backend, study_name=f"{self.sweep.name}: {cell.key.title}",
                pruner=self.sweep.make_pruner(), directions=list(directions), load_if_exists=True,
            )
            known = search.user_attrs.get("ftlab.sweep")
            if known is None:
                search.set_user_attr("ftlab.sweep", self.sweep.digest)
                search.set_metric_names(list(self.sweep.objectives))
            elif known != self.sweep.digest:
                raise InputError(
                    f"storage {self.storage.where} holds another sweep called {self.sweep.name}: "
                    "its study, spaces, seeds, objective, sampler or pruner differ",
                    "give this sweep another name (name: ...) or another storage",
                )
            self._searches[cell.key.config] = search

    def _trials(self, cell: Cell) -> list[FrozenTrial]:
        return self._searches[cell.key.config].get_trials(deepcopy=False)

    def standing(self) -> list[Standing]:
        """Every cell's trials."""
        cells = self.sweep.study.cells
        return self.storage.patiently(
            lambda: [Standing(c, self.sweep.trials_of(c), self._trials(c)) for c in cells])

    def over(self) -> bool:
        """Whether every cell's budget is spent."""
        return all(standing.over for standing in self.standing())

    # Leases

    @property
    def _roll(self) -> Search:
        """The search that lists the owners: the first cell's."""
        return self._searches[self.sweep.study.cells[0].key.config]

    def beat(self, now: bool = False) -> None:
        """Show that this coordinator lives; at most every quarter of a lease, unless `now`."""
        if not now and time.monotonic() - self._beaten < self.lease / 4:
            return
        self._beaten = time.monotonic()
        self._beat += 1
        record = self.owner.record(self._beat)
        name = f"ftlab.owner.{self.owner.name}"
        self.storage.patiently(lambda: self._roll.set_user_attr(name, record))

    def _free(self, trial: FrozenTrial, owners: Mapping[str, Any]) -> bool:
        """Whether a running trial has nobody who works at it."""
        owner = _lease(trial)["owner"]
        if owner is None:
            return True
        return owner != self.owner.name and self._watch.gone(
            owner, owners.get(f"ftlab.owner.{owner}"))

    def holds(self, held: Held) -> bool:
        """Whether the lease is still ours."""
        def ours() -> bool:
            trial = self.storage.backend.get_trial(held.trial_id)
            mine = {"owner": self.owner.name, "token": held.token}
            return trial.state == TrialState.RUNNING and _lease(trial) == mine

        return self.storage.patiently(ours)

    def _grant(self, cell: Cell, trial: FrozenTrial) -> Held:
        """Make a running trial ours under the next token."""
        backend = self.storage.backend
        token = _lease(trial)["token"] + 1
        # a coordinator that died with its machine says nothing against the trial
        begun = _lease(trial)["owner"] is None
        attempts = trial.user_attrs.get("ftlab.attempts", 0) + begun
        backend.set_trial_user_attr(trial._trial_id, "ftlab.attempts", attempts)
        lease = {"owner": self.owner.name, "token": token}
        backend.set_trial_user_attr(trial._trial_id, "ftlab.lease", lease)
        values = dict(trial.params)
        return Held(cell, trial.number, trial._trial_id, values, token, attempts)

    # The life of a trial

    def take(self, more: bool = True) -> Held | None:
        """A trial to try: one that nobody works at any more, else a new one.

        The cell with the fewest trials comes first, so that all advance alike.

        Args:
            more: whether new ones may be asked for.
        """
        return self.storage.exclusively(lambda: self._take(more))

    def _take(self, more: bool) -> Held | None:
        if self._outages != self.storage.outages:
            self._outages = self.storage.outages
            self._watch.forget()
        standings = [Standing(c, self.sweep.trials_of(c), self._trials(c))
                     for c in self.sweep.study.cells]
        owners = self._roll.user_attrs
        for standing in standings:
            for trial in standing.trials:
                if trial.state == TrialState.RUNNING and self._free(trial, owners):
                    return self._grant(standing.cell, self._whole(standing.cell, trial))
        open_ = [s for s in standings
                 if s.count(TrialState.WAITING) or len(s.trials) < s.budget]
        if not more or not open_:
            return None
        cell = min(open_, key=lambda s: len(s.trials) - s.count(TrialState.WAITING)).cell
        return self._grant(cell, self._ask(cell))

    def _ask(self, cell: Cell) -> FrozenTrial:
        search, space = self._searches[cell.key.config], self.sweep.spaces[cell.key.technique]
        trials = self._trials(cell)
        if not trials:
            search.enqueue_trial(own_values(cell.technique, space))
        number = len([t for t in trials if t.state != TrialState.WAITING])
        search.sampler = self.sweep.make_sampler(self._seed(cell, number))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            trial = search.ask(dict(space))
        return self.storage.backend.get_trial(trial._trial_id)

    def _whole(self, cell: Cell, trial: FrozenTrial) -> FrozenTrial:
        """A trial with all its values; a coordinator may have died while it asked for them."""
        space = self.sweep.spaces[cell.key.technique]
        if space.keys() <= trial.params.keys():
            return trial
        search = self._searches[cell.key.config]
        search.sampler = self.sweep.make_sampler(self._seed(cell, trial.number))
        asked = Trial(search, trial._trial_id)
        for name, distribution in space.items():
            asked._suggest(name, distribution)  # as Study.ask does
        return self.storage.backend.get_trial(trial._trial_id)

    def _seed(self, cell: Cell, number: int) -> int:
        """Of the sampler for one trial: the same whoever asks, whenever."""
        said = f"{self.sweep.digest} {cell.key.config} {number}"
        return int.from_bytes(hashlib.sha256(said.encode()).digest()[:4], "big")

    def report(self, held: Held, step: int, value: float) -> bool:
        """Store an intermediate value; whether the trial should be pruned."""
        search = self._searches[held.cell.key.config]

        def act() -> bool:
            backend = self.storage.backend
            backend.set_trial_intermediate_value(held.trial_id, step, value)
            return search.pruner.prune(search, backend.get_trial(held.trial_id))

        return self.storage.patiently(act) if self.holds(held) else False

    def complete(self, held: Held, values: Sequence[float]) -> bool:
        """Tell a trial's values; False where it is no longer ours."""
        for name, value in zip(self.sweep.objectives, values, strict=True):
            if not math.isfinite(value):
                return self.fail(held, f"{name} is {value}")
        return self._tell(held, TrialState.COMPLETE, list(values), "")

    def prune(self, held: Held) -> bool:
        """End a trial whose last report counts as its value; False where it is no longer ours."""
        return self._tell(held, TrialState.PRUNED, None, "pruned")

    def fail(self, held: Held, reason: str) -> bool:
        """End a trial that gave no value; False where it is no longer ours."""
        return self._tell(held, TrialState.FAIL, None, reason)

    def _tell(self, held: Held, state: TrialState, values: list[float] | None,
              reason: str) -> bool:
        def act() -> bool:
            if not self.holds(held):
                return False
            if reason:
                self.storage.backend.set_trial_user_attr(held.trial_id, "ftlab.reason", reason)
            self._searches[held.cell.key.config].tell(held.number, values, state)
            return True

        return self.storage.exclusively(act)

    def release(self, held: Held, attempted: bool = False) -> bool:
        """Give a trial back, to be taken again by whoever comes; False where it is not ours.

        Args:
            held: the trial.
            attempted: whether this attempt counts: its process vanished, not the coordinator.
        """
        def act() -> bool:
            if not self.holds(held):
                return False
            backend = self.storage.backend
            if not attempted:
                backend.set_trial_user_attr(held.trial_id, "ftlab.attempts", held.attempts - 1)
            lease = {"owner": None, "token": held.token}
            backend.set_trial_user_attr(held.trial_id, "ftlab.lease", lease)
            return True

        return self.storage.exclusively(act)


def _lease(trial: FrozenTrial) -> dict[str, Any]:
    lease: dict[str, Any] = trial.user_attrs.get("ftlab.lease", {"owner": None, "token": 0})
    return lease
