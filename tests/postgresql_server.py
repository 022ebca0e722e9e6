"""A PostgreSQL server of one test session, from the system's package."""

import glob
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

USER = "ftlab"
ACCOUNT = "nobody"  # PostgreSQL refuses to run as root


class Server:
    """A server on loopback, in a folder of its own, without a password."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self.binaries, self.folder, self._databases = binaries, folder, 0
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._call("initdb", "-D", str(folder / "data"), "-U", USER, "-A", "trust", "-E", "UTF8",
                   "--locale=C", "--no-sync")
        self.start()

    def _call(self, program: str, *arguments: str) -> None:
        root = os.geteuid() == 0
        with (self.folder / "calls.log").open("a") as log:
            subprocess.run(
                [self.binaries / program, *arguments], check=True, timeout=120, cwd=self.folder,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                user=ACCOUNT if root else None, extra_groups=[] if root else None,
            )

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        self._call("pg_ctl", "start", "-w", "-D", str(self.folder / "data"),
                   "-l", str(self.folder / "server.log"), "-o", f"{options} -c fsync=off")

    def stop(self, mode: str = "immediate") -> None:
        """End it; `immediate` is as a crash."""
        self._call("pg_ctl", "stop", "-w", "-D", str(self.folder / "data"), "-m", mode)

    def database(self) -> str:
        """The address of a new database."""
        self._databases += 1
        name = f"test{self._databases}"
        self.sql(f"create database {name}")
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{name}"

    def sql(self, statement: str) -> list[tuple[object, ...]]:
        import psycopg

        address = f"postgresql://{USER}@127.0.0.1:{self.port}/postgres"
        with psycopg.connect(address, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A running server; skips where PostgreSQL or its driver is missing."""
    pytest.importorskip("psycopg", reason="the extra postgres is not installed")
    found = [shutil.which("initdb"), *sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))]
    programs = [Path(os.path.realpath(path)) for path in found if path]
    if not programs:
        pytest.skip("no PostgreSQL server here: apt install postgresql")
    # not in pytest's own folders, which another account may not enter
    folder = Path(tempfile.mkdtemp(prefix="ftlab-postgresql-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, ACCOUNT)
        server = Server(programs[-1].parent, folder)
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder)
