"""`python -m ftlab.studies.server`: forks a process for every run that it is told to start.

Messages come as JSON lines on the standard input: `{"start": DIRECTORY, "threads": N, "gpus": []}`
and `{"kill": DIRECTORY}`; answers go out as `{"directory": ..., "code": ...}`. When the input ends
the server stops the runs and itself, and a run dies with its server, so that a killed coordinator
or server leaves nothing behind.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftlab.studies.engine import OUTPUT
from ftlab.studies.pipe import Lines

GRACE = 5.0  # seconds from SIGTERM to SIGKILL
POLL = 0.02  # seconds from one look at the children to the next


@dataclass
class _Child:
    directory: str
    stop_at: float = 0.0  # when SIGTERM turns into SIGKILL


def serve() -> None:
    """The server's loop; see the module."""
    faulthandler.register(signal.SIGUSR1)  # inherited by the runs
    _preload()
    children: dict[int, _Child] = {}
    commands = Lines(sys.stdin.fileno())
    closing = False
    while children or not closing:
        for message in commands.read(0.0 if closing else POLL):
            if "start" in message:
                children[_fork(message)] = _Child(message["start"])
            else:
                _stop((p, c) for p, c in children.items() if c.directory == message["kill"])
        if commands.ended and not closing:
            closing = True
            _stop(children.items())
        for pid in list(children):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                answer = {"directory": children.pop(pid).directory,
                          "code": os.waitstatus_to_exitcode(status)}
                if not closing:
                    print(json.dumps(answer), flush=True)
            elif 0 < children[pid].stop_at < time.monotonic():
                signal_group(pid, signal.SIGKILL)
        if closing:
            time.sleep(POLL)


def _preload() -> None:
    import lightning  # noqa: F401
    import peft  # noqa: F401
    import torchvision  # noqa: F401
    import transformers  # noqa: F401

    import ftlab.studies.process
    import ftlab.training.run
    import ftlab.training.search  # noqa: F401


def _stop(children: Any) -> None:
    for pid, child in children:
        if not child.stop_at:
            signal_group(pid, signal.SIGUSR1)  # write where it stands into its output
            signal_group(pid, signal.SIGTERM)
            child.stop_at = time.monotonic() + GRACE


def signal_group(pid: int, number: signal.Signals) -> None:
    """To a process and all that it started: DDP's ranks and loaders are in its group."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        os.kill(pid, number)  # not yet a leader


def _fork(message: dict[str, Any]) -> int:
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    die_with(parent)
    os.setsid()
    directory = Path(message["start"])
    redirect(directory / OUTPUT)
    if message["gpus"]:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(message["gpus"])
    from ftlab.studies.process import main

    code = main(directory, message["threads"])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def redirect(output: Path) -> None:
    """Give this process a file for what it prints, and nothing to read."""
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)


def die_with(parent: int) -> None:
    """Be killed when the parent is (Linux; elsewhere a killed server leaves its runs)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it died before
            os._exit(1)


if __name__ == "__main__":
    serve()
