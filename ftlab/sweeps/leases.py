"""Leases: which coordinator works at which trial.

A trial belongs to the coordinator that its lease names. A coordinator shows that it lives by a
beat; where one is gone, another takes its trials over under the next token, and what the first
one may still say of them is refused (fencing).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from threading import Lock
from typing import Any

from optuna.storages import BaseStorage
from optuna.study import Study as Search
from optuna.trial import FrozenTrial

from ftlab.studies.run_queue import Holder
from ftlab.sweeps.liveness import LivenessWatch, Owner
from ftlab.sweeps.storage import Storage

_LEASE = "ftlab.lease"
_OWNER = "ftlab.owner."


@dataclass(frozen=True)
class Lease:
    """The holder of a trial; one record, so that no crash leaves half of it.

    Attributes:
        owner: the coordinator's name; None where it was given back.
        token: grows with every change of hands.
        attempts: begun so far that count.
    """

    owner: str | None = None
    token: int = 0
    attempts: int = 0

    @classmethod
    def of(cls, trial: FrozenTrial) -> Lease:
        """The lease of a trial, as stored."""
        return cls(**trial.user_attrs.get(_LEASE, {}))

    def store(self, backend: BaseStorage, trial_id: int) -> None:
        """Make it the trial's."""
        backend.set_trial_user_attr(trial_id, _LEASE, asdict(self))


class Leases:
    """The leases of a sweep, as one coordinator sees them.

    Args:
        storage: of the sweep.
        roll: the search whose attributes list the coordinators.
        seconds: without a beat after which another coordinator counts as gone.
    """

    def __init__(self, storage: Storage, roll: Search, seconds: float) -> None:
        self.storage, self.seconds = storage, seconds
        self.owner = Owner.this()
        self._roll, self._watch = roll, LivenessWatch(seconds)
        self._beat, self._beaten, self._showing = 0, 0.0, Lock()
        self._working: set[tuple[int, int]] = set()
        storage.waiting = self.beat  # who waits for another's lock lives all the same
        self.beat(now=True)

    def beat(self, now: bool = False) -> None:
        """Show that we live, and look who else does; each quarter of a lease unless `now`."""
        if not now and time.monotonic() - self._beaten < self.seconds / 4:
            return
        self._beaten = time.monotonic()
        self.storage.patiently(self.show)
        for name, other in self.storage.patiently(self.owners).items():
            self._watch.look(name, other)

    def show(self) -> None:
        """Show that we live; may be called from another thread."""
        with self._showing:
            self._beat += 1
            self._roll.set_user_attr(_OWNER + self.owner.name, self.owner.record(self._beat))

    def owners(self) -> dict[str, Any]:
        """Each coordinator's record."""
        return {name.removeprefix(_OWNER): record
                for name, record in self._roll.user_attrs.items() if name.startswith(_OWNER)}

    def free(self, trial: FrozenTrial, owners: Mapping[str, Any]) -> bool:
        """Return whether a running trial has nobody who works at it."""
        lease = Lease.of(trial)
        if lease.owner is None:
            return True
        if lease.owner == self.owner.name:
            # not in work: an outage hid from us that it became ours
            return (trial._trial_id, lease.token) not in self._working
        return self._watch.gone(lease.owner, owners.get(lease.owner))

    def holder(self, name: str, owners: Mapping[str, Any]) -> Holder:
        """A coordinator that holds trials, for people."""
        record = owners[name]
        here = self._watch.here(record)
        host = "this machine" if here else record.get("host") or "another machine"
        number = record["process"].partition(" ")[0]
        return Holder(f"process {number} on {host}", here, self._watch.lives(name, record))

    def grant(self, trial: FrozenTrial) -> Lease:
        """Make a running trial ours under the next token."""
        old = Lease.of(trial)
        # a coordinator that died with its machine says nothing against the trial
        begun = old.owner is None
        lease = Lease(self.owner.name, old.token + 1, old.attempts + begun)
        lease.store(self.storage.backend, trial._trial_id)
        return lease

    def add(self, trial_id: int, token: int) -> None:
        """Remember that we work at a trial."""
        self._working.add((trial_id, token))

    def forget(self, trial_id: int, token: int) -> None:
        """Work at a trial no more."""
        self._working.discard((trial_id, token))

    def ours(self, trial: FrozenTrial, token: int) -> bool:
        """Return whether a trial, as stored, is ours under a token."""
        lease = Lease.of(trial)
        return lease.owner == self.owner.name and lease.token == token
