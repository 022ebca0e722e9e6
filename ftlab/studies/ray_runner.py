"""Executes runs on a node of a Ray cluster, one after the other, as the coordinator asks.

A node shares no file system with the coordinator. The specification comes in a call, and what the
run reports and writes goes back in the answers of others. Nothing here imports Ray.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ftlab.studies.engine import SPECIFICATION, STOP, Event, MachineShare
from ftlab.studies.following import follow
from ftlab.studies.forked import TO_SAVE
from ftlab.studies.local_engine import LocalEngine
from ftlab.studies.nodes import PARTING, Node
from ftlab.training import state_files

PATIENCE = 1.0  # seconds that a call waits for news, and so from one sign of life to the next
PIECE = 16 * 2**20  # bytes of a file in one answer, so that no checkpoint has to fit into memory
PREFIX = "ftlab-ray-"


class Runner:
    """Executes runs on the machine that it is on, one at a time, each in a process of its own.

    A file comes back as events `file` (name, data: the next bytes of it), before `exit`; a state of
    the run as soon as it is written, with `states` (name, data: of the list of states) last. The
    first event is `node` (name). `environment` comes when it is known, some seconds into the first run,
    so that no event of the run and no call to it has to wait for it.

    Args:
        folder: where the study's relative paths start, if this machine has it.
        threads: of the CPU for each run.
        timeout: seconds without a sign of life after which a run is ended; None waits for ever.
    """

    def __init__(self, folder: str, threads: int, timeout: float | None) -> None:
        with contextlib.suppress(OSError):
            os.chdir(folder)
        self._home, self._lock_of_home = _own_folder()
        self._workers = LocalEngine([MachineShare(threads)], timeout)
        self._asked = _ask_for_environment()
        self._leaving: Iterator[Event] | None = None
        self._sending: Iterator[Event] = iter(())
        self._sent: set[tuple[str, int]] = set()
        self._busy = threading.Lock()  # `close` may be called while `more` waits
        self._leading = contextlib.ExitStack()
        self._followed: threading.Event | None = None

    def take(self, run: str, name: str, data: bytes) -> None:
        """Take the next bytes of a file of a run that is to go on here."""
        path = self._home / run / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(data)

    def lead(self, host: str, count: int) -> str:
        """Be the first of several nodes of each run.

        Args:
            host: address of this machine.
            count: of the nodes.

        Returns:
            The first node, for the others.
        """
        node = Node(0, count, host, 0)
        listening = node.listen()
        self._workers.node = node = replace(node, port=listening.getsockname()[1])
        self._leading.enter_context(node.leading(listening))
        return node.text

    def follow(self, first: str, number: int) -> None:
        """Execute this node's share of each run, until the first node closes.

        Args:
            first: what the first one's `lead` gave.
            number: of this one.
        """
        self._followed = threading.Event()
        self._workers.node = node = replace(Node.of_text(first), number=number)
        try:
            follow(node, self._workers, None, print, self._home)
        finally:
            self._followed.set()

    def begin(self, name: str, specification: str, first: str = "") -> list[Event]:
        """Start a run in a folder of that name; the answer says where it is.

        Args:
            name: of the folder.
            specification: of the run.
            first: what `lead` gave, where there are several nodes: it comes before.
        """
        self._directory = self._home / name
        self._directory.mkdir(exist_ok=True)
        (self._directory / SPECIFICATION).write_text(specification, encoding="utf-8")
        self._leaving, self._environment_sent = None, False
        self._sending = iter(())
        self._sent = set(state_files.numbers(self._directory))
        self._workers.start(self._directory)
        return [{"event": "node", "name": platform.node()}]

    @cached_property
    def _environment(self) -> dict[str, Any]:
        """Waits until it is known."""
        output, errors = self._asked.communicate()
        if self._asked.returncode:
            last = (errors.strip().splitlines() or ["no reason given"])[-1]
            raise RuntimeError(f"ftlab does not work on {platform.node()}: {last}")
        environment: dict[str, Any] = json.loads(output)
        return environment

    def more(self) -> list[Event]:
        """The run's reports since the last call, its files, and its `exit` last; waits a second."""
        with self._busy:
            if self._leaving is not None:
                return [next(self._leaving)]
            if piece := next(self._sending, None):
                return [piece]
            news = [event for _, event in self._workers.events(PATIENCE)]
            ended = bool(news) and news[-1]["event"] == "exit"
            if not self._environment_sent and (ended or self._asked.poll() is not None):
                news.insert(0, {"event": "environment", "said": self._environment})
                self._environment_sent = True
            if ended:
                self._leaving = self._leave(news.pop())
            else:
                self._sending = self._send_states()
            return news

    def _send_states(self) -> Iterator[Event]:
        """The states that the coordinator has not, should this machine vanish."""
        new = [entry for entry in state_files.numbers(self._directory) if entry not in self._sent]
        try:
            for folder, number in new:
                for path in state_files.files(self._directory / folder, number):
                    yield from self._pieces(path)
                name = f"{folder}/{state_files.MANIFEST}"
                yield {"event": "states", "name": name, "data": (self._directory / name).read_bytes()}
                self._sent.add((folder, number))
        except FileNotFoundError:  # a later state has taken its place meanwhile
            return

    def _pieces(self, path: Path) -> Iterator[Event]:
        name = path.relative_to(self._directory).as_posix()
        with path.open("rb") as file:
            yield {"event": "file", "name": name, "data": file.read(PIECE)}
            while piece := file.read(PIECE):
                yield {"event": "file", "name": name, "data": piece}

    def _leave(self, exit_: Event) -> Iterator[Event]:
        yield from self._send_states()
        for path in sorted(self._directory.rglob("*")):
            name = path.relative_to(self._directory)
            if (path.is_file() and name.as_posix() != SPECIFICATION and path.name != STOP
                    and state_files.FOLDER not in name.parts):
                yield from self._pieces(path)
        shutil.rmtree(self._directory)
        yield exit_

    def prune(self, member: str = "") -> None:
        """Ask the run, or a member of a pack, to end after its next validation."""
        with contextlib.suppress(FileNotFoundError):  # it has ended
            self._workers.prune(self._directory / member)

    def close(self) -> None:
        """Stop what runs and leave nothing behind."""
        if self._followed is not None:
            self._followed.wait(TO_SAVE + PARTING)  # the first node says that it is over, or is gone
        with self._busy:
            self._workers.close()
        self._leading.close()
        self._asked.kill()
        self._asked.communicate()
        shutil.rmtree(self._home, ignore_errors=True)


def _ask_for_environment() -> subprocess.Popen[str]:
    """A process of its own, since PyTorch would keep memory of the GPU here."""
    script = "import json; from ftlab.studies.provenance import here; print(json.dumps(here()))"
    return subprocess.Popen(
        [sys.executable, "-P", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _own_folder() -> tuple[Path, int]:
    """A temporary folder with a lock that says it is in use; those of killed runners are removed."""
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # in use, another user's, or just removed
            _remove_unused(left)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        lock = os.open(folder, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():  # nobody took it for abandoned before it was locked
            return folder, lock
        os.close(lock)


def _remove_unused(folder: Path) -> None:
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    finally:
        os.close(lock)
