"""The storage of trials: Optuna's journal file or PostgreSQL, with a lock over several steps."""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TypeVar

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ftlab import addresses
from ftlab.errors import FtlabError, InputError
from ftlab.files import is_full
from ftlab.redaction import redact
from ftlab.sweeps.journal_storage import FileLock, Journal
from ftlab.sweeps.postgresql import Server

OUTAGE = (OSError, StorageInternalError, DBAPIError, PoolTimeout)
"""What a storage raises that does not answer."""
_LASTING = {
    errno.EROFS: "name another file",
    **dict.fromkeys((errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS), "name a file on a disk whose "
                    "files can be locked, or postgresql://user@host/database"),
}
"""What time does not mend, and what does; a full disk as well."""
PAUSE = 1.0  # seconds between tries during an outage
_USERINFO = re.compile(r"[^/]*:.*@")  # of an address without its scheme
T = TypeVar("T")


def is_file(where: str) -> bool:
    """Return whether trials are in a journal file; else they are in PostgreSQL.

    Raises:
        InputError: neither, or an address that cannot be read.
    """
    mend = "storage: optuna.journal, or postgresql://user@host/database"
    if "://" not in where and (_USERINFO.match(where) is None or Path(where).exists()):
        return True
    if not where.startswith(("postgresql://", "postgresql+")):
        raise InputError(f"storage {addresses.shown(where)}: neither a journal file nor PostgreSQL",
                         mend)
    addresses.parse(where, "storage")
    return False


class Storage:
    """Optuna's storage, and a lock that one coordinator holds at a time.

    Args:
        where: a journal file, or `postgresql://user@host/database`.
        patience: seconds that an outage may last, or another may keep the lock.
        hold: seconds after which PostgreSQL takes the lock from a coordinator that says nothing.

    Attributes:
        backend: Optuna's; read it through `patiently`, change it through `exclusively`.
        waiting: called now and then while another holds the lock.
        note: takes one line when an outage begins, and one when it ends.
        close: ends connections; the end of the process does as well.

    Raises:
        InputError: it cannot be opened.
    """

    def __init__(self, where: str, patience: float = 600.0, hold: float = 60.0) -> None:
        self.where, self.patience = where, patience
        self.waiting: Callable[[], None] = lambda: None
        self.note: Callable[[str], None] = lambda text: None
        self.close: Callable[[], object] = lambda: None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._hurry: Callable[[float], None]
        self.backend: BaseStorage
        self._lock: Callable[[Callable[[], None]], AbstractContextManager[None]]
        if is_file(where):
            self._open_journal(Path(where).absolute())
        else:
            self._open_postgresql(where, hold)

    def _open_journal(self, path: Path) -> None:
        try:
            journal = Journal(path, self.patience)
            self.backend = JournalStorage(journal)
        # what Optuna raises of a file that holds other JSON
        except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
            raise InputError(f"storage {path}: {_reason(error)}",
                             "name a file that can be written, and that holds nothing but "
                             "Optuna's journal") from error
        lock = FileLock(path.with_name(path.name + ".sweep-lock"), self.patience)

        def hurry(seconds: float) -> None:
            lock.patience = journal.patience = seconds

        self._hurry = hurry

        @contextmanager
        def held(waiting: Callable[[], None]) -> Iterator[None]:
            with lock.held(waiting), journal.together():
                yield

        self._lock = held

    def _open_postgresql(self, url: str, hold: float) -> None:
        try:
            server = Server(url, self.patience, hold)
        except (ArgumentError, NoSuchModuleError, ImportError, UnicodeError, *OUTAGE) as error:
            mend = ('pip install "ftlab[postgres]"' if isinstance(error, ImportError)
                    else "start the server, or mend the address")
            raise InputError(f"storage {redact(url)}: {_reason(error)}", mend) from error
        self.backend, self._lock, self.close = server.backend, server.held, server.close

        def hurry(seconds: float) -> None:
            server.patience = seconds

        self._hurry = hurry

    def hurry(self, seconds: float) -> None:
        """From now on wait so long at most, for an outage and for another's lock."""
        self.patience = min(self.patience, seconds)
        self._hurry(self.patience)

    def exclusively(self, act: Callable[[], T]) -> T:
        """`act()` while no other coordinator acts; again, whole, after an outage.

        An outage may hide that a write succeeded, so `act` begins with what it finds.

        Raises:
            FtlabError: the outage lasts too long, or another keeps the lock.
        """

        def locked() -> T:
            with self._lock(self.waiting):
                return act()

        return self.patiently(locked)

    def patiently(self, act: Callable[[], T]) -> T:
        """`act()`, again after an outage.

        Raises:
            InputError: we may not write.
            FtlabError: the outage lasts too long.
        """
        begin, out = time.monotonic(), False
        while True:
            try:
                done = act()
                break
            except PermissionError as error:  # no outage: time does not mend it
                raise InputError(f"storage {self.where}: {error}",
                                 "make the file and its folder writable, or name another") from error
            except OUTAGE as error:
                mend = _LASTING.get(error.errno or 0) if isinstance(error, OSError) else None
                if is_full(error):
                    mend = "free space there; the same command continues"
                if mend is not None:
                    raise FtlabError(f"storage {redact(self.where)}: {_reason(error)}", mend
                                     ) from error
                reason = f"the storage {redact(self.where)} does not answer: {_reason(error)}"
                if time.monotonic() - begin > self.patience:
                    raise FtlabError(
                        reason, "mend it and give the same command again: nothing finished is repeated",
                    ) from error
                if not out:
                    self.note(reason)
                out = True
                time.sleep(PAUSE)
        if out:
            self.note(f"the storage answers again after {time.monotonic() - begin:.0f} s")
        return done


def _reason(error: BaseException) -> str:
    """The reason in a line; Optuna hides a database's own words in the cause."""
    if isinstance(error, StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    return redact((str(error).strip() or type(error).__name__).splitlines()[0])
