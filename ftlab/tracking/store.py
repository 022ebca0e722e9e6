"""Opens a tracking store: which addresses are allowed, and what SQLite needs."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import random
import re
import socket
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname
from uuid import uuid4

import sqlalchemy
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from ftlab import addresses
from ftlab.errors import InputError
from ftlab.files import is_full
from ftlab.redaction import redact
from ftlab.tracking.schema import UNREACHABLE, check_schema

DEFAULT = "sqlite:///mlflow.db"
SERVERS = ("http", "https")
DATABASES = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_RIVALS = 20  # tries at a row that other processes write
_RIVAL = re.compile(r"IntegrityError|UNIQUE constraint|duplicate (key|entry)|deadlock|"
                    r"could not serialize|UniqueViolation|row\(s\); 0 were matched", re.IGNORECASE)
T = TypeVar("T")
_NOWHERE = logging.NullHandler()
_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "9p", "lustre", "gpfs", "beegfs", "ceph", "fuse.sshfs"}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence MLflow's and Alembic's chatter inside the block, and put their handlers back.

    Handlers and not levels: a change of a level empties what every logger of the process has
    cached, which takes longer than many a write.
    """
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    before = [(logger.handlers, logger.propagate) for logger in loggers]
    try:
        for logger in loggers:
            logger.handlers, logger.propagate = [_NOWHERE], False
        yield
    finally:
        for logger, (handlers, propagate) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate


def past_rivals(act: Callable[..., T], *arguments: object) -> T:
    """`act(*arguments)`, again where another process wrote the same row at the same moment."""
    for attempt in range(1, _RIVALS):
        try:
            return act(*arguments)
        except MlflowException as error:
            if not _RIVAL.search(str(error)):
                raise
        time.sleep(random.uniform(0, 0.02 * attempt))
    return act(*arguments)


def resolve(uri: str | None) -> str:
    """The address to use, absolute where it is a SQLite file.

    Args:
        uri: None means MLFLOW_TRACKING_URI, and without it `mlflow.db` in the current folder.

    Raises:
        InputError: an address that MLflow cannot keep runs at.
    """
    uri = (uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT).strip()
    scheme = uri.partition("://")[0].split("+")[0].lower()
    if scheme == "sqlite":
        path = _sqlite_file(uri)
        if not path.parent.is_dir():
            raise InputError(
                f"tracking store sqlite:///{path}: the folder {path.parent} does not exist",
                "create the folder, or give another --tracking-uri",
            )
        return f"sqlite:///{path}"
    if scheme in SERVERS or scheme in DATABASES:
        address = addresses.parse(uri, "tracking store")
        if not address.host and scheme in SERVERS:
            raise InputError(f"tracking store {address}: no host", "write http://HOST:PORT")
        return uri.rstrip("/") if scheme in SERVERS else uri
    raise InputError(
        f"tracking store {addresses.shown(uri)}: not a database or a tracking server "
        "(MLflow 3.13 and later refuses folders)",
        f"use {DEFAULT}, or http://HOST:PORT of an MLflow server",
    )


def sqlite_path(uri: str) -> Path | None:
    """The database file of a resolved address, None for servers."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def look(uri: str) -> None:
    """Check that a store can be used; makes and changes nothing.

    Args:
        uri: resolved.

    Raises:
        InputError: it cannot; says why.
    """
    path = sqlite_path(uri)
    if path is None or path.exists():
        connect(uri)


def local_path(artifacts: str) -> Path | None:
    """The folder behind a run's address of files; None where it is not on this machine's disk."""
    parts = urlsplit(artifacts)
    if parts.scheme not in ("", "file") or parts.netloc:
        return None
    return Path(url2pathname(parts.path))


def connect(uri: str) -> MlflowClient:
    """A client whose store exists and answers.

    Raises:
        InputError: it does not answer, or is something else; says what.
    """
    path = sqlite_path(uri)
    if path is not None:
        _check_sqlite(path)
    else:
        _check_database(uri)
    try:
        if path is not None and not path.exists():
            _make(path)
        elif not uri.startswith(SERVERS):
            check_schema(uri)
        client = _open(uri)
    except (MlflowException, OSError, ModuleNotFoundError, UNREACHABLE) as error:
        raise InputError(*_advice(uri, error)) from error
    if path is not None and not _on_network(path):
        _use_wal(path)
    return client


def _open(uri: str) -> MlflowClient:
    """A client that has asked its store something."""
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # SQLAlchemy's, about MLflow's use
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)
    return client


def _make(path: Path) -> None:
    """Make a SQLite store in another place and put it where it belongs once it is whole.

    MLflow makes its tables in many steps, and cannot go on where a kill has left it half-way.
    """
    with _alone_in(path.parent):
        if path.exists():  # another process was first
            return
        temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
        try:
            _open(f"sqlite:///{temporary}")._tracking_client.store.engine.dispose()
            if not _on_network(path):
                _use_wal(temporary)  # later it would have to wait for everybody who reads
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Others that make a store in this folder wait, rather than make one each."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: the link alone decides
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _sqlite_file(uri: str) -> Path:
    shown = addresses.shown(uri)
    name = uri.partition("sqlite:///")[2].partition("?")[0]
    if not name or name == ":memory:":
        raise InputError(f"tracking store {shown}: no file name", f"use {DEFAULT}")
    return Path(os.path.abspath(name))


def _advice(uri: str, error: Exception) -> tuple[str, str]:
    reason = redact(str(error).strip().splitlines()[0] if str(error).strip() else repr(error))
    if is_full(error):
        return f"tracking store {redact(uri)}: {reason}", "free space there, or give another one"
    if isinstance(error, ImportError):
        return f"tracking store {redact(uri)}: {reason}", "install the database's Python driver"
    return (
        f"tracking store {redact(uri)} does not answer: {reason}",
        "start the server or mend its address (--tracking-uri, MLFLOW_TRACKING_URI)",
    )


def _check_sqlite(path: Path) -> None:
    """MLflow retries for 100 s on a file that is not a database; look first."""
    try:
        if path.exists() and path.stat().st_size:
            with contextlib.closing(sqlite3.connect(path, timeout=20)) as database:
                rows = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
                tables = {row[0] for row in rows}
            if "trials" in tables and "experiments" not in tables:
                raise InputError(
                    f"tracking store {path}: this is an Optuna database, and both tools use the "
                    "table alembic_version",
                    "give MLflow a file of its own",
                )
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise InputError(f"tracking store {path}: not writable", "give another --tracking-uri")
    except sqlite3.Error as error:
        raise InputError(
            f"tracking store {path}: {error}", "give a SQLite file that no other program locks"
        ) from error


def _check_database(uri: str) -> None:
    """MLflow retries for 100 s on a database that does not let it in; knock first."""
    address = addresses.parse(uri, "tracking store")
    if address.scheme not in DATABASES:
        return
    try:
        if address.host:  # else a socket
            port = address.port or DATABASES[address.scheme]
            socket.create_connection((address.host, port), 5).close()
        engine = sqlalchemy.create_engine(uri, poolclass=NullPool)
        engine.connect().close()
    # a name that DNS cannot have is no Unicode, and a setting that a driver lacks a TypeError
    except (OSError, SQLAlchemyError, ImportError, ValueError, TypeError) as error:
        raise InputError(*_advice(uri, error)) from error


def _on_network(path: Path) -> bool:
    """Return whether a file lies on a network file system, where SQLite's WAL is unsafe."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return False
    lines = [line.split() for line in mounts.read_text(encoding="utf-8").splitlines()]
    above = [(line[1], line[2]) for line in lines if path.is_relative_to(line[1])]
    return max(above, key=lambda entry: len(entry[0]), default=("", ""))[1] in _NETWORK


def _use_wal(path: Path) -> None:
    """Let readers (the UI) and the writer work at the same time; the file remembers it."""
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=20)) as database:
            database.execute("PRAGMA journal_mode = WAL")
    except sqlite3.Error as error:
        raise InputError(
            f"tracking store {path}: {error}", "close the program that locks it"
        ) from error
