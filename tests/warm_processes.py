"""Processes without the imports' seconds: one that has them, started once, forks all others.

`start("ftlab.cli", "run", "study.yaml")` is `python -m ftlab.cli run study.yaml`. What a process
reads of its surroundings when it begins (arguments, environment, current folder, open files) it is
given anew, so that it is as one that was spawned, but for what libraries read when they are imported
and for the seed of Python's hashes. Its own servers, too, come from here.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import pkgutil
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

PIPE, DEVNULL = subprocess.PIPE, subprocess.DEVNULL
SERVER = "ftlab.studies.fork_server"
LONGEST = 1_000_000  # bytes of a request, of which most are the environment
_source: list[subprocess.Popen[bytes]] = []  # the process that forks, in whichever started it
_socket: list[socket.socket] = []  # where requests for it go, in its forks too


class Process:
    """The part of `subprocess.Popen` that tests and engines need."""

    def __init__(self, pid: int, status: int, stdin: IO[bytes] | None, stdout: IO[bytes] | None) -> None:
        self.pid, self.stdin, self.stdout = pid, stdin, stdout
        self.returncode: int | None = None
        self._status = os.fdopen(status, "rb", 0)

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self.returncode = int(self._status.readline())
            self._status.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None and not select.select([self._status], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("a warm process", timeout or 0.0)
        code = self.poll()
        assert code is not None
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start(module: str, *arguments: object, folder: Path | None = None,
          environment: Mapping[str, str] | None = None, stdin: int = DEVNULL,
          stdout: int | IO[Any] | None = None, stderr: int | IO[Any] | None = None,
          session: bool = False) -> Process:
    """`python -m MODULE ARGUMENTS`, in this process's folder and environment unless given."""
    if not _socket:
        _open()
    request = json.dumps({
        "module": module, "arguments": [*map(str, arguments)], "session": session,
        "folder": str(folder or Path.cwd()), "environment": dict(environment or os.environ)})
    here, theirs = _stream(stdin, 0)
    out, their_out = _stream(stdout, 1)
    _, their_err = _stream(stderr, 2)
    status, their_status = os.pipe()
    given = [theirs, their_out, their_err, their_status]
    socket.send_fds(_socket[0], [request.encode()], given)
    for number in given:
        os.close(number)
    pid = b""
    while not pid.endswith(b"\n"):
        part = os.read(status, 1)
        assert part, "the process that forks has died"
        pid += part
    return Process(int(pid), status, None if here is None else os.fdopen(here, "wb", 0),
                   None if out is None else os.fdopen(out, "rb", 0))


def run(module: str, *arguments: object, folder: Path | None = None,
        environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The same to its end, with what it prints."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        code = start(module, *arguments, folder=folder, environment=environment,
                     stdout=out, stderr=err).wait(600)
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess(arguments, code, out.read(), err.read())


def _stream(wanted: int | IO[Any] | None, number: int) -> tuple[int | None, int]:
    """This process's end of a standard stream, if any, and a descriptor for the other."""
    if wanted == PIPE:
        reading, writing = os.pipe()
        return (writing, reading) if number == 0 else (reading, writing)
    if wanted == DEVNULL:
        return None, os.open(os.devnull, os.O_RDWR)
    if wanted is None:
        return None, os.dup(number)
    return None, os.dup(wanted if isinstance(wanted, int) else wanted.fileno())


def start_server() -> Process:
    """A fork server, in place of `server_process.spawned`."""
    return start(SERVER, stdin=PIPE, stdout=PIPE, session=True)


def _open() -> None:
    """Start the process of which all are forks; it ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ends = theirs.fileno(), ours.fileno()
    _source.append(subprocess.Popen(
        [sys.executable, "-P", __file__, *map(str, ends), str(os.getpid())], pass_fds=ends,
        stdin=subprocess.DEVNULL, start_new_session=True))
    theirs.close()
    _socket.append(ours)


def close() -> None:
    """End that process, if it was ever needed."""
    while _source:
        _source[-1].kill()
        _source.pop().wait()
        _socket.pop().close()


def _import_all() -> None:
    from ftlab.studies.preload import preload, settle

    preload()
    package = importlib.import_module("ftlab")
    for module in pkgutil.walk_packages(package.__path__, "ftlab."):
        with contextlib.suppress(ModuleNotFoundError):  # of an extra that is not installed
            importlib.import_module(module.name)
    settle()


def _serve(asked: socket.socket, parent: int) -> dict[str, Any]:
    """Fork for each request; returns in each fork, with its request."""
    from ftlab.studies.forked import die_with

    die_with(parent)
    deaths, wakeup = os.pipe()
    for number in (deaths, wakeup):
        os.set_blocking(number, False)
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    going: dict[int, int] = {}  # process -> where its exit code goes
    while True:
        ready, _, _ = select.select([asked, deaths], [], [])
        if deaths in ready:
            os.read(deaths, 4096)
            for pid, code in _ended():
                with contextlib.suppress(BrokenPipeError), os.fdopen(going.pop(pid), "wb", 0) as to:
                    to.write(f"{code}\n".encode())
        if asked not in ready:
            continue
        request, descriptors, _, _ = socket.recv_fds(asked, LONGEST, 4)
        *streams, status = descriptors
        pid = os.fork()
        if pid:
            os.write(status, f"{pid}\n".encode())
            going[pid] = status
            for number in streams:
                os.close(number)
            continue
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in (deaths, wakeup, status, *going.values()):
            os.close(number)
        for place, number in enumerate(streams):
            os.dup2(number, place)
            os.close(number)
        asked.close()
        wanted: dict[str, Any] = json.loads(request)
        return wanted


def _ended() -> list[tuple[int, int]]:
    codes = []
    with contextlib.suppress(ChildProcessError):  # there are none
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            codes.append((ended[0], os.waitstatus_to_exitcode(ended[1])))
    return codes


def _become(wanted: dict[str, Any]) -> None:
    """Be what was asked for, to the interpreter's end."""
    before = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ.clear()
    os.environ.update(wanted["environment"])
    os.chdir(wanted["folder"])
    if wanted["session"]:
        os.setsid()
    time.tzset()
    random.seed()
    more = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep)
            if place and place not in before]
    if wanted["module"] != SERVER:  # which is started with -P
        more.insert(0, wanted["folder"])
    sys.path[:0] = more
    if any((Path(place) / "ftlab").is_dir() for place in more):  # another one: all of it anew
        for name in [name for name in sys.modules if name.partition(".")[0] == "ftlab"]:
            del sys.modules[name]
    sys.argv = [wanted["module"], *wanted["arguments"]]
    import cheaper

    import ftlab.studies.server_process as servers
    from ftlab.commands import show, studies, sweeps

    servers.spawned = start_server
    for commands in (show, studies, sweeps):
        commands.FRESH = _Fresh()  # type: ignore[assignment]
    cheaper.by_environment()
    sys.modules.pop(wanted["module"], None)  # or runpy would warn
    try:
        runpy.run_module(wanted["module"], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, str):
            raise
        code = end.code or 0
    else:
        code = 0
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # taking the imports down in order takes most of a second


class _Fresh:
    """Answers for `show.FRESH`: nothing was computed here, and its imports are what a fork wants."""

    def set(self, value: bool) -> None:
        pass

    def get(self) -> bool:
        return True


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    importlib.import_module("cheaper")
    del sys.path[0]  # what it forks finds the tests' modules where a test says so
    _import_all()
    asked, own, parent = map(int, sys.argv[1:])
    _socket.append(socket.socket(fileno=own))
    _become(_serve(socket.socket(fileno=asked), parent))
