"""Writes that wait for the tracking store, so that an outage never stops training."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from mlflow.exceptions import MlflowException

from ftlab.errors import FtlabError, InputError
from ftlab.redaction import redact
from ftlab.tracking.spool import Spool
from ftlab.tracking.store import past_rivals, quiet
from ftlab.tracking.writes import Write

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
SHARE = 0.1  # of the time that tries may take, where a store accepts a connection and says nothing
LARGEST = 256 * 2**20  # bytes on disk; beyond, of a batch the last value of each metric is kept

OUTAGE = (MlflowException, OSError)  # requests' errors are OSErrors
"""What a store raises; `is_final` separates refusals from outages."""


def is_final(error: Exception) -> bool:
    """Return whether another try is pointless: the store refused, or the local file is gone."""
    if isinstance(error, FileNotFoundError | NotADirectoryError | InputError):
        return True
    return isinstance(error, MlflowException) and error.error_code in _FINAL


def one_line(error: Exception) -> str:
    """The error's first line, without secrets."""
    return redact((str(error).strip() or repr(error)).splitlines()[0])


class Outbox:
    """Sends writes in order; keeps them while the store does not answer.

    From the first failure on they wait in a file, where there is a folder for it: a kill, or an
    outage that outlasts us, then loses nothing. What waits in a file of an earlier process is sent
    by the same means.

    Args:
        send: `send(write, run id)` carries a write out and returns the id of what it made; safe
            to call again after a failure.
        folder: of the file; None keeps writes in memory alone.
        store: the address of the store, without secrets.
        spool: that of an earlier process, to be sent.
        patience: seconds that `drain` tries before it gives up.
    """

    def __init__(self, send: Callable[[Write, str], str], folder: Path | None = None,
                 store: str = "", spool: Spool | None = None, patience: float = 15.0) -> None:
        self.patience = patience
        self.refused: list[str] = list(spool.refused) if spool else []
        self._send, self._folder, self._store, self._spool = send, folder, store, spool
        self._ids: dict[str, str] = dict(spool.ids) if spool else {}  # ours -> MLflow's
        self._waiting: deque[Write] = deque()  # behind those on disk
        self._pause = 0.0
        self._next_try = 0.0
        self._thin = False

    def __len__(self) -> int:
        return len(self._waiting) + len(self._spool or ())

    def add(self, write: Write) -> None:
        """Put a write behind those that wait; `deliver` sends it."""
        self._waiting.append(write)
        if self._spool is not None:
            self._to_disk()

    def deliver(self, now: bool = False) -> bool:
        """Send what waits, and say whether nothing waits any more.

        After a failure nothing is tried for a pause that doubles, unless `now`.
        """
        if not now and time.monotonic() < self._next_try:
            return not len(self)
        while len(self):
            write = self._spool.first() if self._spool else self._waiting[0]
            began, made, refused = time.monotonic(), "", ""
            try:
                with quiet():
                    made = past_rivals(self._send, write, self.id(write.run))
            except (*OUTAGE, FtlabError) as error:
                if not is_final(error):
                    self._outage(error, time.monotonic() - began)
                    return False
                refused = f"{write.what}: {one_line(error)}"
                self.refused.append(refused)
                logger.warning("tracking store refused %s", refused)
            self._drop(write, made, refused)
        if self._pause:
            logger.warning("tracking store answers again; everything kept is stored")
        self._pause = self._next_try = 0.0
        self._close()
        return True

    def drain(self) -> None:
        """Send what waits, trying for `patience` seconds; then let go of the file.

        Raises:
            FtlabError: something is not stored; says what, and where it waits.
        """
        deadline = time.monotonic() + self.patience
        while not self.deliver(now=True) and time.monotonic() < deadline:
            time.sleep(min(0.5, max(0.0, deadline - time.monotonic())))
        lost = [*self.refused, *(write.what for write in self._waiting)]
        kept, where = len(self._spool or ()), self._spool.path if self._spool else None
        self._close()
        what = [f"the tracking store does not answer: {kept} writes wait in {where}"] if kept else []
        if lost:
            more = f" and {len(lost) - 5} more" if len(lost) > 5 else ""
            what.append(f"the tracking store did not take {len(lost)} writes: "
                        f"{'; '.join(lost[:5])}{more}")
        if what:
            raise FtlabError("; ".join(what), (
                "nothing is lost of what waits: once the store answers, `ftlab sync` sends it, and "
                "so does the same command, which repeats nothing that is finished"
            ) if kept else (
                "mend the store and give the same command again: it repeats only what is missing"))

    def _drop(self, write: Write, made: str, refused: str) -> None:
        """The first write is done with."""
        if write.makes and made:
            self._ids[write.makes] = made
        if self._spool:
            self._spool.drop(made, refused)
        else:
            self._waiting.popleft()

    def _close(self) -> None:
        if self._spool is not None:
            self._spool.close()
        self._spool = None

    def _to_disk(self) -> None:
        """Move what waits in memory behind what waits on disk."""
        try:
            if self._spool is None:
                self._spool = Spool.new(self._folder, self._store) if self._folder else None
            while self._spool is not None and self._waiting:
                write = self._waiting[0]  # another process can use MLflow's ids alone
                self._spool.append(self._thinned(replace(write, run=self.id(write.run))))
                self._waiting.popleft()
        except OSError as error:
            logger.warning("what the tracking store does not take cannot be kept on disk, and "
                           "waits in memory: %s", one_line(error))

    def _thinned(self, write: Write) -> Write:
        """A batch of metrics without the course of each, once the file is too large."""
        if write.action != "log" or self._spool is None or self._spool.size < LARGEST:
            return write
        if not self._thin:
            self._thin = True
            logger.warning("%s has reached %d MB: of further metrics not every value is kept",
                           self._spool.path, LARGEST // 10**6)
        metrics, *rest = write.values
        last = {metric[0]: metric for metric in metrics}
        return replace(write, values=(list(last.values()), *rest))

    def id(self, given: str) -> str:
        """MLflow's id for one of ours; any other id is itself."""
        return self._ids.get(given, given)

    def create(self, write: Write) -> str:
        """Make a run, now or after the outage; returns an id that works meanwhile.

        Raises:
            FtlabError: the store refused.
        """
        pending = f"pending-{uuid4().hex}"
        self.add(replace(write, makes=pending))
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
                    return past_rivals(read)
            except OUTAGE as error:
                last = error
                if is_final(error):
                    break
                time.sleep(pause)
        raise FtlabError(
            f"the tracking store does not answer: {one_line(last)}",
            "mend the store and give the same command again",
        ) from last

    def _outage(self, error: Exception, took: float) -> None:
        if not self._pause:
            logger.warning("tracking store does not answer, training goes on: %s", one_line(error))
        self._pause = min(self._pause * 2 or FIRST_PAUSE, LONGEST_PAUSE)
        self._next_try = time.monotonic() + max(self._pause, took / SHARE)
        if self._waiting:
            self._to_disk()
