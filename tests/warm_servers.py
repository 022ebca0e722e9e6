"""Fork servers without the imports' seconds: a process that has them, started once, forks them.

What a server reads of its environment when it begins (variables, the current folder) it is given
anew, so that it is as one that was spawned, but for what libraries read when they are imported.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import IO

from ftlab.studies.server_process import ServerProcess


class WarmServers:
    """Forks fork servers."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL, start_new_session=True)
        theirs.close()

    def start(self) -> ServerProcess:
        """A server in this process's folder and environment."""
        commands, answers = os.pipe(), os.pipe()
        request = json.dumps({"environment": dict(os.environ), "folder": os.getcwd()}).encode()
        socket.send_fds(self._socket, [request], [commands[0], answers[1], 2])
        os.close(commands[0])
        os.close(answers[1])
        pid = int(self._socket.recv(100))
        return _Server(pid, os.fdopen(commands[1], "wb", 0), os.fdopen(answers[0], "rb", 0))

    def close(self) -> None:
        self._socket.close()
        self._process.wait()


class _Server:
    """A server that is another process's child."""

    def __init__(self, pid: int, stdin: IO[bytes], stdout: IO[bytes]) -> None:
        self.pid, self.stdin, self.stdout = pid, stdin, stdout

    def wait(self, timeout: float | None = None) -> int:
        until = time.monotonic() + (timeout or 600)
        while self._lives():
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("a warm server", timeout or 600)
            time.sleep(0.01)
        return 0

    def kill(self) -> None:
        if self._lives():
            os.kill(self.pid, signal.SIGKILL)

    def _lives(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True


def _main(descriptor: int) -> None:
    from ftlab.studies.fork_server import serve
    from ftlab.studies.preload import preload

    preload()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # servers that have ended leave no zombies
    asked = socket.socket(fileno=descriptor)
    before = os.environ.get("PYTHONPATH", "")
    while True:
        request, descriptors, _, _ = socket.recv_fds(asked, 1_000_000, 3)
        if not request:
            os._exit(0)
        pid = os.fork()
        if pid:
            for number in descriptors:
                os.close(number)
            asked.send(str(pid).encode())
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        asked.close()
        os.setsid()
        for number, place in zip(descriptors, (0, 1, 2), strict=True):
            os.dup2(number, place)
            os.close(number)
        wanted = json.loads(request)
        os.environ.clear()
        os.environ.update(wanted["environment"])
        os.chdir(wanted["folder"])
        sys.path[:0] = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep)
                        if place and place not in before.split(os.pathsep)]
        code = 1
        try:
            serve()
            code = 0
        finally:
            os._exit(code)


if __name__ == "__main__":
    _main(int(sys.argv[1]))
