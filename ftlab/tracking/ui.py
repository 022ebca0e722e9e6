"""Starts MLflow's own user interface, on this machine only."""

from __future__ import annotations

import os
import subprocess
import sys

from ftlab.errors import InputError
from ftlab.tracking import store

HOST = "127.0.0.1"


def ui_command(uri: str | None, port: int = 5000) -> list[str]:
    """The command that serves a store on the loopback address.

    MLflow's default list of allowed hosts has patterns (`10.*`) that names of strangers match,
    which lets DNS rebinding through; exact names do not.

    Raises:
        InputError: a port out of range, a store that is a server with a UI of its own, or no
            store there.
    """
    if not 1 <= port <= 65535:
        raise InputError(f"port {port}: not between 1 and 65535", "give another --port")
    resolved = store.resolve(uri)
    if resolved.startswith(store.SERVERS):
        raise InputError(f"{resolved} is a tracking server", f"open {resolved} in a browser")
    path = store.sqlite_path(resolved)
    if path is not None and not path.exists():
        raise InputError(f"no tracking store at {path}", "run a study first: ftlab run STUDY")
    names = [f"{name}:{port}" for name in (HOST, "localhost")]
    command = [sys.executable, "-m", "mlflow", "ui", "--host", HOST, "--port", str(port)]
    command += ["--workers", "1", "--allowed-hosts", ",".join(names)]
    command += ["--cors-allowed-origins", ",".join(f"http://{name}" for name in names)]
    # A database's address may hold a password, which a command line would show to everybody.
    return command if path is None else [*command, "--backend-store-uri", resolved]


def serve(uri: str | None, port: int = 5000) -> int:
    """Serve until interrupted; returns MLflow's exit code."""
    command = ui_command(uri, port)
    environment = {**os.environ, "MLFLOW_BACKEND_STORE_URI": store.resolve(uri)}
    return subprocess.run(command, env=environment, check=False).returncode
