"""`$FTLAB_CACHE`: what is computed once a machine, as files that any process may read or make."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TextIO

LIMIT = 20_000_000_000  # bytes on disk, unless $FTLAB_CACHE_BYTES says otherwise
POLL = 0.2  # seconds from one try at a lock to the next
KINDS = ("prefix", "tokens", "stages", "retained")
"""Folders whose .safetensors files are bounded together."""

LOGGER = "ftlab.cache"
logger = logging.getLogger(LOGGER)
_untouched = ContextVar("untouched", default=False)


@contextmanager
def untouched() -> Iterator[None]:
    """Within it nothing is added: what is there is read, all else is computed and forgotten."""
    token = _untouched.set(True)
    try:
        yield
    finally:
        _untouched.reset(token)


def may_add() -> bool:
    """Return whether files may be made."""
    return not _untouched.get()


def folder(kind: str) -> Path:
    """Where the files of a kind are; the default is below `~/.cache/ftlab`."""
    return Path(os.environ.get("FTLAB_CACHE", "~/.cache/ftlab")).expanduser() / kind


def limit() -> int:
    """Bytes that all files together may take."""
    return int(os.environ.get("FTLAB_CACHE_BYTES", LIMIT))


@contextmanager
def locked(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """A lock among processes, which ends with its process.

    Args:
        path: of the lock's file.
        waiting: called every now and then while another process has it.
    """
    with _lock_file(path) as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waiting()
                time.sleep(POLL)
        yield


def damaged(what: str) -> None:
    """Say that a file is not what was written, and is made again; a run takes a note of it."""
    logger.warning("damaged cache, made again: %s", what)


def _lock_file(path: Path) -> TextIO:
    try:
        return path.open("a")
    except PermissionError:  # another user's, of a folder that several share
        return path.open()


def mark_read(path: Path) -> None:
    """Let a file be the last that is evicted; one that may only be read keeps its time."""
    with contextlib.suppress(OSError):
        os.utime(path)


def make_room(needed: int) -> None:
    """Remove what was read longest ago, of whatever kind; who has it mapped keeps it."""
    files = []
    for kind in KINDS:
        for path in folder(kind).glob("*.safetensors"):
            with contextlib.suppress(FileNotFoundError):  # another process has removed it
                status = path.stat()
                files.append((status.st_mtime, status.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total + needed <= limit():
            return
        total -= size
        path.unlink(missing_ok=True)
