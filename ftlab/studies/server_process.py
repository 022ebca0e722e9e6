"""The fork server's process, as the engine that started it sees it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from typing import IO, Protocol

from ftlab.studies.forked import leave

ENDING = (signal.SIGINT, signal.SIGTERM)


class ServerProcess(Protocol):
    """The part of `subprocess.Popen` that an engine needs.

    Attributes:
        pid: of the server.
        stdin, stdout: pipes, for commands and answers.
    """

    pid: int
    stdin: IO[bytes] | None
    stdout: IO[bytes] | None

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code; raises `subprocess.TimeoutExpired`."""

    def kill(self) -> None:
        """End it at once."""


def spawned() -> ServerProcess:
    """A server in a new interpreter, which imports for itself."""
    # A session of its own, so that Ctrl-C reaches the coordinator alone.
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "ftlab.studies.fork_server"],  # no file here is a module
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)


def forked() -> ServerProcess:
    """A server in a copy of this process, which has its imports already.

    Only for a process in which no tensor was computed and nothing was connected yet: the threads of
    OpenMP do not survive a fork, and locks of files would be held by both.
    """
    commands, answers = _pipe(), _pipe()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    ours = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # or the child might act for us
    child = os.fork()
    if child:
        signal.pthread_sigmask(signal.SIG_SETMASK, ours)
        os.close(commands[0])
        os.close(answers[1])
        return _Forked(child, commands[1], answers[0])

    def body() -> int:
        from ftlab.studies.fork_server import serve

        os.setsid()
        for number in ENDING:  # those of the coordinator
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ours)
        os.dup2(commands[0], 0)
        os.dup2(answers[1], 1)
        for descriptor in (*commands, *answers):
            os.close(descriptor)
        here = os.getcwd()  # where `python -m` looks first, and no run may
        sys.path[:] = [place for place in sys.path if place not in ("", here)]
        serve()
        return 0

    leave(body)


def _pipe() -> tuple[int, int]:
    """A pipe that is none of the standard streams, where these are closed."""
    ends = []
    for end in os.pipe():
        if end > 2:
            ends.append(end)
        else:
            ends.append(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 3))
            os.close(end)
    return ends[0], ends[1]


class _Forked:
    def __init__(self, pid: int, commands: int, answers: int) -> None:
        self.pid, self._code = pid, -1
        self.stdin: IO[bytes] | None = os.fdopen(commands, "wb", 0)
        self.stdout: IO[bytes] | None = os.fdopen(answers, "rb", 0)
        self._ended = False

    def wait(self, timeout: float | None = None) -> int:
        until = None if timeout is None else time.monotonic() + timeout
        while not self._look(patient=timeout is None):
            if timeout is not None and until is not None and time.monotonic() > until:
                raise subprocess.TimeoutExpired("the fork server", timeout)
            time.sleep(0.01)
        return self._code

    def _look(self, patient: bool) -> bool:
        if not self._ended:
            try:
                pid, status = os.waitpid(self.pid, 0 if patient else os.WNOHANG)
            except ChildProcessError:  # whoever started us ignores SIGCHLD: nobody keeps its code
                pid, status = self.pid, 0
            if pid:
                self._ended, self._code = True, os.waitstatus_to_exitcode(status)
        return self._ended

    def kill(self) -> None:
        if not self._look(patient=False):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
