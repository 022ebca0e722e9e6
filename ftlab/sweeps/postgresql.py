"""PostgreSQL as Optuna's storage, with a lock that no write outlives."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy
from optuna.storages import BaseStorage, RDBStorage, _CachedStorage
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from ftlab.errors import FtlabError, InputError
from ftlab.redaction import redact

KEY = 0x66746C6162
"""Of the advisory lock: "ftlab"."""
_LOCKED = "ftlab.locked"
_LOOK = 1000  # milliseconds that who waits for a lock does nothing else
_NOT_AVAILABLE = "55P03"  # SQLSTATE of a lock_timeout
_DRIVERS = ("psycopg", "psycopg2")  # both take libpq's arguments


class LockLost(OSError):
    """The connection that held the lock is gone, and the lock with it."""


class Server:
    """Optuna's storage in a PostgreSQL database, and an exclusive lock over several steps of it.

    The lock is PostgreSQL's own advisory lock, which belongs to a connection. There is one
    connection, so that every write under the lock goes through the one that holds it: where the
    server drops it (a restart, a dead network), nothing is written without the lock. The server
    drops it as well where its client says nothing for `hold` seconds, be it stopped or cut off;
    so nobody waits for ever.

    Args:
        url: `postgresql://user@host/database`; PostgreSQL 14 or later.
        patience: seconds to wait for the lock.
        hold: seconds that a silent holder keeps it.

    Raises:
        InputError: another driver, or a database of something else.
    """

    def __init__(self, url: str, patience: float, hold: float) -> None:
        made = sqlalchemy.make_url(url)
        if made.get_driver_name() not in _DRIVERS:
            raise InputError(f"storage {redact(url)}: the driver {made.get_driver_name()}",
                             "postgresql://user@host/database, which takes psycopg")
        self.patience, self._ours = patience, False
        idle = f"{hold * 1000:.0f}"  # milliseconds; in the middle of a transaction and between two
        options = (f"-c idle_session_timeout={idle} -c idle_in_transaction_session_timeout={idle} "
               f"-c lock_timeout={_LOOK}")
        kwargs: dict[str, Any] = {
            "connect_args": {
                "connect_timeout": 10,
                # a server that vanishes without a word is noticed within 30 s, not hours
                "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 4,
                "tcp_user_timeout": 30_000,
                "options": " ".join([*_listed(made.query.get("options")), options]),
            },
        }
        plain = url.replace("{", "{{").replace("}", "}}")  # Optuna fills templates
        self._engine = sqlalchemy.create_engine(url, **kwargs)
        try:
            with self.held():  # two coordinators must not make the tables at once
                # its connections are two at once, which ours below does not have
                RDBStorage(plain, engine_kwargs={**kwargs, "poolclass": NullPool})
        except RuntimeError as error:  # MLflow, too, has a table `alembic_version`
            raise InputError(f"storage {redact(url)}: {str(error).splitlines()[0]}",
                             "give Optuna a database of its own, apart from MLflow's") from error
        finally:
            self._engine.dispose()
        backend = RDBStorage(
            plain, skip_table_creation=True, skip_compatibility_check=True,
            engine_kwargs={**kwargs, "pool_size": 1, "max_overflow": 0, "pool_timeout": 10},
        )
        self._engine = backend.engine
        self.close = self._engine.dispose
        weakref.finalize(self, self.close)  # at exit at the latest
        sqlalchemy.event.listen(self._engine, "checkout", self._check)
        self.backend: BaseStorage = _CachedStorage(backend)  # once, not once a cell as Optuna would

    def _check(self, connection: Any, record: Any, proxy: Any) -> None:
        """Refuse a new connection while the lock should be held by an old one."""
        if self._ours and _LOCKED not in record.info:
            raise LockLost("the connection to PostgreSQL was lost")

    @contextmanager
    def held(self, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold the lock.

        Args:
            waiting: called now and then while another holds it.

        Raises:
            FtlabError: another holds it for longer than our patience.
        """
        begin = time.monotonic()
        while not self._acquire():
            if time.monotonic() - begin > self.patience:
                raise FtlabError(f"the storage is locked for {self.patience:.0f} s",
                                 "see pg_locks for who holds its advisory lock")
            waiting()
        self._ours = True
        try:
            yield
        finally:
            self._ours = False
            self._release()

    def _acquire(self) -> bool:
        """Take the lock, and return whether it is ours; a second's wait at most."""
        try:
            with self._engine.connect() as connection:
                connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql(
                    f"select pg_advisory_lock({KEY})")
                connection.info[_LOCKED] = True
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", getattr(error.orig, "pgcode", "")) != _NOT_AVAILABLE:
                raise
            return False
        return True

    def _release(self) -> None:
        try:
            with self._engine.connect() as connection:
                connection.info.pop(_LOCKED, None)
                connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql(
                    "select pg_advisory_unlock_all()")
        except DBAPIError:
            # The connection is lost, and with it the lock. What was done under it is done, and
            # must not be done again.
            self._engine.dispose()


def _listed(options: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (options,) if isinstance(options, str) else options or ()
