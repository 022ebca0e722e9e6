"""`python -m ftlab.studies.fork_server`: forks a process for every run that it is asked to start.

Messages come as JSON lines on the standard input: `{"start": DIRECTORY, "threads": N, "gpus": []}`
and `{"kill": DIRECTORY}`; answers go out as `{"directory": ..., "started": true}` and
`{"directory": ..., "code": ...}`. When the input ends the server stops the runs and itself, and a
run dies with its server, so that a killed coordinator or server leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlab.studies.engine import OUTPUT, SPECIFICATION
from ftlab.studies.forked import GRACE, TO_SAVE, die_with, leave, redirect
from ftlab.studies.held_trials import HeldTrials
from ftlab.studies.json_lines import LineReader
from ftlab.studies.nodes import Node, leave_starter
from ftlab.studies.preload import ImportsSeen, preload
from ftlab.training.trainer_settings import processes_of

if TYPE_CHECKING:
    from ftlab.training.run import Run

POLL = 0.02  # seconds from one look at the children to the next, while some are being ended
END = ((0.0, signal.SIGTERM), (TO_SAVE, signal.SIGKILL))
"""Seconds and signals by which a run is ended."""
END_HANGING = ((0.0, signal.SIGUSR1), (1.0, signal.SIGCONT), (2.0, signal.SIGTERM),
               (GRACE, signal.SIGKILL))
"""The same where it hangs: first each process writes where it stands into its output (SIGTERM
would come before that, were it sent at once), those too that something has stopped."""


@dataclass
class _Child:
    directory: str
    due: deque[tuple[float, signal.Signals]] = field(default_factory=deque)

    def end(self, how: Iterable[tuple[float, signal.Signals]]) -> None:
        """Have signals sent, unless it is being ended already."""
        if not self.due:
            self.due.extend((time.monotonic() + delay, number) for delay, number in how)


def serve() -> None:
    """The server's loop; see the module."""
    faulthandler.register(signal.SIGUSR1)  # inherited by the runs
    adopt_orphans()
    leave_starter()
    preload()
    learned = ImportsSeen()
    trials = HeldTrials()
    children: dict[int, _Child] = {}
    commands = LineReader(0)
    deaths = _watch_deaths()
    closing = False
    while children or not closing:
        hurried = closing or any(child.due for child in children.values())
        for message in commands.read(0.0 if closing else POLL if hurried else None, deaths):
            if "start" in message:
                learned.take()
                held = trials.started(message["start"], message["threads"])
                children[_fork(message, learned, held)] = _Child(message["start"])
                _answer({"directory": message["start"], "started": True})
            else:
                for child in children.values():
                    if child.directory == message["kill"]:
                        child.end(END_HANGING)
        if commands.ended and not closing:
            closing = True
            for child in children.values():
                child.due.clear()
                child.end(END)
        for pid, code in _ended():
            if pid in children:
                ended = children.pop(pid)
                trials.ended(ended.directory, code)
                _signal_rest(pid)
                if not closing:
                    _answer({"directory": ended.directory, "code": code})
        for pid, child in children.items():
            while child.due and child.due[0][0] <= time.monotonic():
                signal_group(pid, child.due.popleft()[1])
        if closing:
            time.sleep(POLL)


def _answer(message: dict[str, Any]) -> None:
    os.write(1, f"{json.dumps(message)}\n".encode())


def _ended() -> Iterator[tuple[int, int]]:
    """Exit codes of runs, and of orphans, which leave no zombies."""
    with contextlib.suppress(ChildProcessError):  # there are none
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            yield pid, os.waitstatus_to_exitcode(status)


def signal_group(pid: int, number: signal.Signals) -> None:
    """To a process and all that it started: DDP's ranks and loaders are in its group."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        os.kill(pid, number)  # not yet a leader


def _signal_rest(pid: int) -> None:
    """End what a run has left behind in its group: a killed one's loaders notice late.

    Python's resource tracker ignores the signal, and ends when it has removed shared memory.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGTERM)


def _watch_deaths() -> int:
    """A descriptor that can be read once a child has died, until `LineReader.read` empties it."""
    reading, writing = os.pipe()
    for descriptor in (reading, writing):
        os.set_blocking(descriptor, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)  # or Python would not write
    return reading


def _fork(message: dict[str, Any], learned: ImportsSeen, held: Run | None) -> int:
    """Fork the process of a run.

    Args:
        message: starts it.
        learned: takes what it imports.
        held: a run whose backbone and data are its own.
    """
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    die_with(parent)
    os.setsid()
    directory = Path(message["start"])
    redirect(directory / OUTPUT)
    if message["gpus"]:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(message["gpus"])

    def body() -> int:
        node = Node.of_text(message["node"]) if message.get("node") else None
        code = execute_folder(directory, message["threads"], held, node)
        if code == 0:
            learned.send()
        return code

    leave(body)


def execute_folder(directory: Path, threads: int | None, held: Run | None = None,
                   node: Node | None = None) -> int:
    """Execute the run of a folder, with its ranks where it has several; the exit code.

    Args:
        directory: of the run.
        threads: of the CPU; None for the libraries' own choice.
        held: a run whose backbone and data are its own.
        node: this one, where runs may be of several.
    """
    from ftlab.studies.run_process import execute, execute_pack, journal

    specification = json.loads((directory / SPECIFICATION).read_text(encoding="utf-8"))
    if "members" in specification:
        return execute_pack(directory, specification["members"], threads, journal(directory))
    if processes_of(specification["trainer"]) > 1:
        from ftlab.studies.ddp_ranks import supervise

        return supervise(directory, specification, threads, node)
    return execute(directory, specification, threads, journal(directory), held)


def adopt_orphans() -> None:
    """Become the parent of processes whose own has died, to reap them (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER


if __name__ == "__main__":
    serve()
    os._exit(0)  # taking the imports down in order would keep the coordinator waiting
