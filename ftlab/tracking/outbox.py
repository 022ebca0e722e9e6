"""Writes that wait for the tracking store, so that an outage never stops training."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar
from uuid import uuid4

from mlflow.exceptions import MlflowException

from ftlab.errors import FtlabError
from ftlab.redaction import redact
from ftlab.tracking.store import quiet

logger = logging.getLogger("ftlab.tracking")
T = TypeVar("T")

# Errors that another try cannot mend; everything else counts as an outage and is tried again.
_FINAL = {
    "BAD_REQUEST",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "MALFORMED_REQUEST",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
}
FIRST_PAUSE = 1.0  # seconds between tries, doubled up to
LONGEST_PAUSE = 60.0

OUTAGE = (MlflowException, OSError)  # requests' errors are OSErrors
"""What a store raises; `is_final` tells a refusal from an outage."""


def is_final(error: Exception) -> bool:
    """Whether another try is pointless: the store refused, or the local file is gone."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return True
    return isinstance(error, MlflowException) and error.error_code in _FINAL


def one_line(error: Exception) -> str:
    """The error's first line, without secrets."""
    return redact((str(error).strip() or repr(error)).splitlines()[0])


@dataclass(frozen=True)
class Write:
    """One write to the store.

    Attributes:
        what: for people, should it fail for good.
        send: does it; safe to call again after a failure.
    """

    what: str
    send: Callable[[], None]


class Outbox:
    """Sends writes in order; keeps them while the store does not answer.

    Args:
        patience: seconds that `drain` tries before it gives up.
    """

    def __init__(self, patience: float = 15.0) -> None:
        self.patience = patience
        self.refused: list[str] = []
        self._ids: dict[str, str] = {}  # ours -> MLflow's
        self._waiting: deque[Write] = deque()
        self._pause = 0.0
        self._next_try = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, what: str, send: Callable[[], None]) -> None:
        """Put a write behind those that wait; `deliver` sends it."""
        self._waiting.append(Write(what, send))

    def add_for(self, what: str, run_id: str, method: Callable[..., object], *args: object) -> None:
        """Put `method(run_id, *args)` behind those that wait; the id may be one of ours."""

        def send() -> None:
            method(self.id(run_id), *args)

        self.add(f"{what} of {run_id}", send)

    def deliver(self, now: bool = False) -> bool:
        """Send what waits, and say whether nothing waits any more.

        After a failure nothing is tried for a pause that doubles, unless `now`.
        """
        if not now and time.monotonic() < self._next_try:
            return not self._waiting
        while self._waiting:
            write = self._waiting[0]
            try:
                with quiet():
                    write.send()
            except OUTAGE as error:
                if not is_final(error):
                    self._outage(error)
                    return False
                self.refused.append(f"{write.what}: {one_line(error)}")
                logger.warning("tracking store refused %s", self.refused[-1])
            self._waiting.popleft()
        if self._pause:
            logger.warning("tracking store answers again; everything kept is stored")
        self._pause = self._next_try = 0.0
        return True

    def drain(self) -> None:
        """Send what waits, trying for `patience` seconds.

        Raises:
            FtlabError: something is not stored; says what.
        """
        deadline = time.monotonic() + self.patience
        while not self.deliver(now=True) and time.monotonic() < deadline:
            time.sleep(min(0.5, max(0.0, deadline - time.monotonic())))
        lost = [*self.refused, *(write.what for write in self._waiting)]
        if lost:
            more = f" and {len(lost) - 5} more" if len(lost) > 5 else ""
            raise FtlabError(
                f"the tracking store did not take {len(lost)} writes: {'; '.join(lost[:5])}{more}",
                "mend the store and give the same command again: it repeats only what is missing",
            )

    def id(self, given: str) -> str:
        """MLflow's id for one of ours; any other id is itself."""
        return self._ids.get(given, given)

    def create(self, what: str, create: Callable[[str], str]) -> str:
        """Run `create(token)`, now or after the outage; returns an id that works meanwhile.

        Raises:
            FtlabError: the store refused.
        """
        token = uuid4().hex
        pending = f"pending-{token}"

        def send() -> None:
            self._ids[pending] = create(token)

        self.add(what, send)
        if self.deliver() and pending not in self._ids:
            raise FtlabError(f"the tracking store refused {self.refused.pop()}")
        return self.id(pending)

    def read(self, read: Callable[[], T]) -> T:
        """Read, trying three times.

        Raises:
            FtlabError: the store does not answer.
        """
        for pause in (0.2, 1.0, 0.0):
            try:
                with quiet():
                    return read()
            except OUTAGE as error:
                last = error
                if is_final(error):
                    break
                time.sleep(pause)
        raise FtlabError(
            f"the tracking store does not answer: {one_line(last)}",
            "mend the store and give the same command again",
        ) from last

    def _outage(self, error: Exception) -> None:
        if not self._pause:
            logger.warning("tracking store does not answer, training goes on: %s", one_line(error))
        self._pause = min(self._pause * 2 or FIRST_PAUSE, LONGEST_PAUSE)
        self._next_try = time.monotonic() + self._pause
