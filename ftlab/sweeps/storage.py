"""Where trials live: Optuna's journal file or PostgreSQL, with a lock over several steps."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from ftlab.errors import FtlabError, InputError
from ftlab.tracking.plain import redact

OUTAGE = (OSError, StorageInternalError, DBAPIError)
"""What a storage raises that does not answer."""
PAUSE = 1.0  # seconds between tries during an outage
T = TypeVar("T")


class Storage:
    """Optuna's storage, and a lock that one coordinator holds at a time.

    Args:
        where: a journal file, or `postgresql://user@host/database`.
        patience: seconds that an outage may last.

    Raises:
        InputError: it cannot be opened.
    """

    def __init__(self, where: str, patience: float = 600.0) -> None:
        self.where, self.patience = where, patience
        self.outages = 0
        """How often it did not answer; who watches clocks of others begins anew then."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.backend: BaseStorage
        self._lock: Callable[[], AbstractContextManager[None]]
        if "://" not in where:
            self._open_journal(Path(where).absolute())
        elif where.startswith("postgresql"):
            self._open_postgresql(where)
        else:
            raise InputError(f"storage {redact(where)}: neither a journal file nor PostgreSQL",
                             "storage: optuna.journal, or postgresql://user@host/database")

    def _open_journal(self, path: Path) -> None:
        try:
            self.backend = JournalStorage(Journal(path))
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"storage {path}: {error}", "name a file that can be written, "
                             "and that holds nothing but Optuna's journal") from error
        lock = FileLock(path.with_name(path.name + ".sweep-lock"))
        self._lock = lock.held

    def _open_postgresql(self, url: str) -> None:
        try:
            engine = sqlalchemy.create_engine(url, pool_pre_ping=True)
            self._lock = lambda: _advisory_lock(engine)
            with self._lock():  # two coordinators must not make the tables at once
                self.backend = RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
        except (ArgumentError, NoSuchModuleError, ImportError, *OUTAGE) as error:
            said = redact(str(error).strip().splitlines()[0])
            mend = ('pip install "ftlab[postgres]"' if isinstance(error, ImportError)
                    else "start the server, or mend the address")
            raise InputError(f"storage {redact(url)}: {said}", mend) from error

    def exclusively(self, act: Callable[[], T]) -> T:
        """`act()` while no other coordinator acts; again, whole, after an outage.

        Raises:
            FtlabError: the outage lasts too long.
        """

        def locked() -> T:
            with self._lock():
                return act()

        return self.patiently(locked)

    def patiently(self, act: Callable[[], T]) -> T:
        """`act()`, again after an outage.

        Raises:
            FtlabError: the outage lasts too long.
        """
        until = time.monotonic() + self.patience
        while True:
            try:
                return act()
            except OUTAGE as error:
                self.outages += 1
                if time.monotonic() > until:
                    said = redact(str(error).strip().splitlines()[0])
                    raise FtlabError(
                        f"the storage {redact(self.where)} does not answer: {said}",
                        "mend it and give the same command again: nothing finished is repeated",
                    ) from error
                time.sleep(PAUSE)


class FileLock:
    """An exclusive lock that its holder's death releases."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold it."""
        with self.path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


class Journal(JournalFileBackend):
    """Optuna's journal, whose end is mended before anything is appended.

    Optuna's own lock outlives a killed holder by 30 s, and a record that a crash tore in two
    would make the journal unreadable once another follows it.

    Args:
        path: made if missing, once; later a missing file is an outage.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(os.fspath(path))
        self._path = path
        self._appending = FileLock(path.with_name(path.name + ".lock"))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append records, each a line of JSON, and flush them to the disk."""
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with self._appending.held(), self._path.open("r+b") as file:
            _cut_torn_end(file)
            file.seek(0, os.SEEK_END)
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())


def _cut_torn_end(file: IO[bytes]) -> None:
    """Drop what follows the last whole record."""
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
        try:
            json.loads(last)
            whole = last.endswith(b"\n")
        except ValueError:
            whole = False
        if whole:
            return
        size = size - length + start
        file.truncate(size)


@contextmanager
def _advisory_lock(engine: sqlalchemy.Engine) -> Iterator[None]:
    """PostgreSQL's own lock of this name; the end of the connection releases it."""
    name = 0x66746C6162  # "ftlab"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sqlalchemy.text(f"select pg_advisory_lock({name})"))
        try:
            yield
        finally:
            connection.execute(sqlalchemy.text(f"select pg_advisory_unlock({name})"))
