"""Optuna's journal file, made to survive crashes, and a lock that names its holder."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from optuna.storages.journal import JournalFileBackend

from ftlab.errors import FtlabError, InputError

RECORD = b'{"op_code":'
"""How every record begins."""


class FileLock:
    """An exclusive lock that its holder's death releases.

    A holder that is stopped keeps it. To break the lock would let that one write without it as
    soon as it goes on, so who waits gives up in the end, and names the holder.

    Args:
        path: of the lock file; its folder exists.
        patience: seconds to wait.
    """

    def __init__(self, path: Path, patience: float) -> None:
        self.path, self.patience = path, patience

    @contextmanager
    def held(self, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold it.

        Args:
            waiting: called now and then while another holds it.

        Raises:
            FtlabError: another holds it for longer than our patience.
        """
        with self.path.open("a+b", buffering=0) as file:
            self._wait(file, waiting)
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
            yield

    def _wait(self, file: IO[bytes], waiting: Callable[[], None]) -> None:
        begin, pause = time.monotonic(), 0.001
        while True:  # by trying: flock has no time-out
            try:
                return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() - begin > self.patience:
                    file.seek(0)
                    holder = file.read().decode(errors="replace")
                    raise FtlabError(
                        f"{self.path} is locked for {self.patience:.0f} s by {holder}",
                        "continue that process if it is stopped, or end it; nothing is lost",
                    ) from None
            waiting()
            time.sleep(pause)
            pause = min(2 * pause, 0.05)


class Journal(JournalFileBackend):
    """Optuna's journal, whose end is mended before anything is appended.

    Optuna's own lock outlives a killed holder by 30 s, and a record that a crash tore in two
    would make the journal unreadable once another follows it.

    Args:
        path: made if missing, once; later a missing file is an outage.
        patience: seconds to wait for others who append.
    """

    def __init__(self, path: Path, patience: float) -> None:
        super().__init__(os.fspath(path))
        self._path = path
        # not Optuna's name for its own lock, which takes whatever lies there for a lock held
        self._appending = FileLock(path.with_name(path.name + ".append-lock"), patience)
        self._together = self._unflushed = False

    @contextmanager
    def together(self) -> Iterator[None]:
        """Flush what is appended inside to the disk once, at the end."""
        self._together, self._unflushed = True, False
        try:
            yield
        finally:
            self._together = False
        if self._unflushed:
            with self._path.open("rb") as file:
                os.fsync(file.fileno())

    @property
    def patience(self) -> float:
        """Seconds to wait for others who append."""
        return self._appending.patience

    @patience.setter
    def patience(self, seconds: float) -> None:
        self._appending.patience = seconds

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append records, each a line of JSON, and flush them to the disk: all of them or none.

        Raises:
            OSError: the disk is full, say. Who appends again after it must not repeat a record.
        """
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        with self._appending.held(), open(
            self._path, "r+b", buffering=0, opener=lambda name, flags: os.open(
                name, flags | os.O_APPEND)  # never over what another wrote, whatever happens
        ) as file:
            size = _cut_torn_end(file, self._path)
            try:
                while text:
                    text = text[file.write(text):]
            except OSError:
                file.truncate(size)
                raise
            self._unflushed = True
            if not self._together:
                os.fsync(file.fileno())

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        # Optuna declares a Generator, of which nothing but iteration is used
        """The records from a number on.

        Raises:
            OSError: the file is not what it was; Optuna would find nothing new in a shorter one.
        """
        offsets = self._log_number_offset
        for number in [n for n in offsets if 0 < n < log_number_from]:
            del offsets[number]  # Optuna keeps them for ever, and asks for the last alone
        if os.stat(self._path).st_size < offsets.get(log_number_from, 0):
            raise OSError(f"{self._path} is shorter than it was: another file in its place?")
        try:
            yield from super().read_logs(log_number_from)
        except ValueError as error:  # its end is being mended while we read, or it is no journal
            raise OSError(f"{self._path} cannot be read: {error}") from error


def _cut_torn_end(file: IO[bytes], path: Path) -> int:
    """Drop what a crash left of a record at the end, and return the bytes that remain."""
    size = file.seek(0, os.SEEK_END)
    length = 4096
    while size:
        length = min(length, size)
        file.seek(size - length)
        tail = file.read(length)
        start = tail.rstrip(b"\n").rfind(b"\n") + 1
        if start == 0 and length < size:
            length *= 2
            continue
        last = tail[start:]
        if _whole(last):
            return size
        begun = last.startswith(RECORD) or RECORD.startswith(last) or not last.strip(b"\0\n")
        if not begun:
            raise InputError(f"storage {path} ends in something that is no record of Optuna's",
                             "name a file that holds nothing but Optuna's journal")
        size = size - length + start
        file.truncate(size)
    return size


def _whole(record: bytes) -> bool:
    try:
        json.loads(record)
    except ValueError:
        return False
    return record.endswith(b"\n")
