"""Sends what processes kept on disk while the store did not answer."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ftlab.errors import FtlabError, InputError
from ftlab.redaction import redact
from ftlab.tracking import store
from ftlab.tracking.mlflow_runs import MlflowRuns
from ftlab.tracking.outbox import Outbox
from ftlab.tracking.spool import FOLDER, Spool
from ftlab.tracking.writes import Write, Writer

logger = logging.getLogger("ftlab.tracking")


@dataclass(frozen=True)
class Sent:
    """The fate of the writes of one file.

    Attributes:
        path: the file.
        stored: how many writes were stored now.
        waiting: how many still wait for us; those that a living process holds do not.
        refused: how many the store refused for good.
        problem: why it has not all been stored; empty where it has.
    """

    path: Path
    stored: int
    waiting: int = 0
    refused: int = 0
    problem: str = ""


def sync(results: Path, uri: str | None = None) -> list[Sent]:
    """Send all that waits below a folder of results.

    Args:
        results: the folder; each study of it has its own.
        uri: the store; None means MLFLOW_TRACKING_URI, and without it the store that the writes
            were meant for.

    Raises:
        InputError: the store does not answer, or the writes are for another one.
    """
    sent: list[Sent] = []
    for folder in sorted(results.glob(f"*/{FOLDER}")):
        with _one_at_a_time(folder):
            for path in _files(folder):
                try:
                    spool = Spool(path)
                except BlockingIOError:
                    sent.append(Sent(path, 0, problem="its process goes on, and sends it itself"))
                    continue
                except FileNotFoundError:
                    continue  # its process has just sent it
                try:
                    writer = _writer(spool, uri)
                except FtlabError:
                    spool.close()
                    raise
                sent.append(_send(spool, writer.send))
    return sent


def send_kept(folder: Path, address: str, send: Callable[[Write, str], str]) -> None:
    """Send what earlier processes kept in a folder for the same store.

    Args:
        folder: of the files.
        address: of the store, without secrets.
        send: as `Writer.send`.

    Raises:
        InputError: they are for another store. Runs for this one would overwrite their files.
        FtlabError: the store does not answer any more.
    """
    with _one_at_a_time(folder):
        for path in _files(folder):
            try:
                spool = Spool(path)
            except (BlockingIOError, FileNotFoundError):  # its process goes on, or has just sent it
                continue
            if spool.store != address:
                spool.close()
                raise InputError(f"{path}: writes for another store, {spool.store}, wait here",
                                 f"ftlab sync --tracking-uri {spool.store}, or give another "
                                 "--results")
            sent = _send(spool, send)
            if sent.waiting:
                raise FtlabError(sent.problem, "mend the store and give the same command again")
            if sent.problem:
                logger.warning("%s", sent.problem)


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Wait for another process that sends what the folder keeps, so that all is sent then."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:  # nothing is kept
        yield
        return
    try:
        with contextlib.suppress(OSError):  # a file system that locks no folders
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _files(folder: Path) -> Iterator[Path]:
    yield from sorted(folder.glob("*.jsonl"))


def _writer(spool: Spool, uri: str | None) -> Writer:
    """A writer to the store that a file's writes are for."""
    given = uri or os.environ.get("MLFLOW_TRACKING_URI")
    address = store.resolve(given or spool.store)
    if redact(address) != spool.store:
        raise InputError(f"{spool.path}: its writes are for {spool.store}, not {redact(address)}",
                         f"--tracking-uri {spool.store}")
    client = store.connect(address)
    return Writer(client, MlflowRuns(client))


def _send(spool: Spool, send: Callable[[Write, str], str]) -> Sent:
    before, problem = len(spool), ""
    try:
        Outbox(send, spool=spool).drain()
    except FtlabError as error:
        problem = error.what
    refused = len(spool.refused)
    return Sent(spool.path, before - len(spool) - refused, len(spool), refused, problem)
