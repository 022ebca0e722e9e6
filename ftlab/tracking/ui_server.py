"""Starts MLflow's own user interface, on this machine only, and prints where each study is."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable

from ftlab.errors import FtlabError, InputError
from ftlab.redaction import redact
from ftlab.tracking import store
from ftlab.tracking.store_reader import StoreReader

HOST = "127.0.0.1"
PATIENCE = 180.0  # seconds until the server answers; its imports alone take ten on a busy machine


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
        where = redact(resolved)
        raise InputError(f"{where} is a tracking server", f"open {where} in a browser")
    path = store.sqlite_path(resolved)
    if path is not None and not path.exists():
        raise InputError(f"no tracking store at {path}", "run a study first: ftlab run STUDY")
    names = [f"{name}:{port}" for name in (HOST, "localhost")]
    command = [sys.executable, "-m", "mlflow", "ui", "--host", HOST, "--port", str(port)]
    command += ["--workers", "1", "--uvicorn-opts", "--no-access-log", "--allowed-hosts", ",".join(names)]
    command += ["--cors-allowed-origins", ",".join(f"http://{name}" for name in names)]
    # A database's address may hold a password, which a command line would show to everybody.
    return command if path is None else [*command, "--backend-store-uri", resolved]


def environment(uri: str | None) -> dict[str, str]:
    """The environment of the server's process.

    Settings for servers of a person's own (no security, other addresses) do not reach this one,
    and MLflow's eight processes for jobs of language agents stay away.
    """
    variables = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_SERVER_")}
    for name in ("MLFLOW_STATIC_PREFIX", "MLFLOW_UVICORN_OPTS", "MLFLOW_GUNICORN_OPTS"):
        variables.pop(name, None)
    return variables | {
        "MLFLOW_BACKEND_STORE_URI": store.resolve(uri),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PYTHONSAFEPATH": "1",  # no file of the current folder is a module to it
    }


def addresses(uri: str | None, port: int = 5000, study: str | None = None) -> dict[str, str]:
    """The addresses of each study and sweep of a store in the UI, by name.

    Args:
        uri: the store.
        port: of the UI.
        study: this one and its sweeps alone.

    Raises:
        InputError: no such study.
    """
    reader = StoreReader(uri)
    return {name: f"http://{HOST}:{port}{path}" for name, path in reader.view_paths(study).items()}


def serve(
    uri: str | None, port: int, say: Callable[[str], object], study: str | None = None
) -> None:
    """Serve until interrupted, or until the server ends; leaves no process behind.

    Args:
        uri: the store.
        port: on the loopback address.
        say: takes each line for people, once the server answers.
        study: whose address is said; None for all.

    Raises:
        InputError: nothing to serve, no such study, or the port is taken.
        FtlabError: the server ended.
    """
    command = ui_command(uri, port)
    places = addresses(uri, port, study)
    _check_free(port)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        parent = os.getpid()
        server = subprocess.Popen(
            command, env=environment(uri), stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a group of its own, to end with all that it started
            preexec_fn=lambda: _end_with(parent),  # noqa: PLW1509  one system call, no lock
        )
        try:
            _wait(server, port)
            for line in _lines(places, port):
                say(line)
            server.wait()
        finally:
            _stop(server)
        output.seek(0)
        lines = [line for line in output if line.strip() and " INFO" not in line]
    last = redact(lines[-1].strip()) if lines else "it said nothing"
    raise FtlabError(
        f"MLflow's server ended with code {server.returncode}: {last}",
        "see what it says by itself: mlflow ui --backend-store-uri STORE",
    )


def _lines(addresses: dict[str, str], port: int) -> list[str]:
    if not addresses:
        return [f"No study is in this store yet: http://{HOST}:{port}"]
    return [*(f"{name}: {address}" for name, address in addresses.items()), "Ctrl-C ends it."]


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server will
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise InputError(
                f"port {port} of {HOST}: {error.strerror or error}", "give another --port"
            ) from error


def _wait(server: subprocess.Popen[bytes], port: int) -> None:
    """Until the server answers or has ended."""
    until = time.monotonic() + PATIENCE
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never by a proxy
    while server.poll() is None:
        with contextlib.suppress(OSError):
            opener.open(f"http://{HOST}:{port}/health", timeout=5).close()
            return
        if time.monotonic() > until:
            raise FtlabError(
                f"MLflow's server does not answer after {PATIENCE:.0f} s", "try again"
            )
        time.sleep(0.1)


def _end_with(parent: int) -> None:
    """In the server's process: get SIGTERM when ftlab is killed (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it died before
            os._exit(1)


def _stop(server: subprocess.Popen[bytes]) -> None:
    """End the server and all that it started; a second Ctrl-C does not leave them either."""
    try:
        _signal(server, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(timeout=5)
    finally:
        _signal(server, signal.SIGKILL)
        server.wait()


def _signal(server: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, number)
