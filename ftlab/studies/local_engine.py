"""The engine of one machine: a server with the heavy imports done forks a process a run."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftlab.studies import nodes, server_process
from ftlab.studies.engine import EVENTS, STOP, Engine, Event, Machine, MachineShare, Requirements
from ftlab.studies.forked import TO_SAVE
from ftlab.studies.json_lines import LineReader
from ftlab.studies.server_process import ServerProcess

POLL = 0.05  # seconds from one look at the runs' files to the next


@dataclass
class _Running:
    tail: _Tail
    share: MachineShare
    last_sign: float | None = None  # not before the server, which may still import, has started it
    reason: str = ""  # why it is being ended
    blame: str = ""  # which of its processes, as its supervisor says


class LocalEngine(Engine):
    """Runs on this machine, as many at a time as there are shares of it.

    Args:
        shares: of the machine; one run at a time with all of it unless given.
        timeout: seconds without a sign of life after which a run is ended; None waits for ever.
        start_server: starts the first server; `spawned` unless given, as is one that takes its place.
        node: this one, where runs are of several; None where there is one alone.

    Attributes:
        node: of the runs that start from now on.
    """

    def __init__(self, shares: Sequence[MachineShare] = (MachineShare(),),
                 timeout: float | None = None,
                 start_server: Callable[[], ServerProcess] | None = None,
                 node: nodes.Node | None = None) -> None:
        self._shares = list(shares)
        self._timeout, self.node = timeout, node
        self._running: dict[Path, _Running] = {}
        self._server = self._serve(start_server or server_process.spawned)

    @property
    def slots(self) -> int:  # type: ignore[override]  # an attribute to those who read it
        return len(self._shares) + len(self._running)

    def prepare(self, need: Requirements, workers: int | None, timeout: float | None) -> None:
        """Share the machine out later than the constructor, which starts the imports."""
        assert not self._running
        nodes.check(self.node, need, workers)
        workers = 1 if need.nodes > 1 else workers
        self._shares = Machine.this().shares(workers, need.devices, need.accelerator)
        self._timeout = timeout

    def _serve(self, start: Callable[[], ServerProcess]) -> ServerProcess:
        server = start()
        assert server.stdout is not None
        self._answers_of = LineReader(server.stdout.fileno())
        return server

    def start(self, directory: Path) -> None:
        share = self._shares.pop(0)
        self._running[directory] = _Running(_Tail(directory / EVENTS), share)
        self._send({"start": str(directory), "threads": share.threads, "gpus": share.gpus,
                    "node": self.node and self.node.text})

    def prune(self, directory: Path) -> None:
        (directory / STOP).touch()

    def events(self, patience: float) -> list[tuple[Path, Event]]:
        until = time.monotonic() + patience
        while True:
            ended = self._answers(min(POLL, max(0.0, until - time.monotonic())))
            news = [entry for directory in self._running for entry in self._read(directory)]
            for directory, event in ended:
                news += self._read(directory)
                run = self._running.pop(directory)
                self._shares.append(run.share)
                if run.reason:
                    reason = f"{run.reason}: {run.blame}" if run.blame else run.reason
                    event |= {"reason": reason, "lost": False}
                news.append((directory, event))
            self._end_silent()
            if news or time.monotonic() >= until:
                return news

    def _read(self, directory: Path) -> list[tuple[Path, Event]]:
        run = self._running[directory]
        events = list(run.tail.read())
        if events:
            run.last_sign = time.monotonic()
        for event in events:
            if run.reason and event["event"] == "failed":
                run.blame = event["reason"]
        return [(directory, event) for event in events]

    def _end_silent(self) -> None:
        for directory, run in self._running.items():
            if self._timeout is None or run.last_sign is None or run.reason:
                continue
            silent = time.monotonic() - run.last_sign
            if silent > self._timeout:
                run.reason = f"no sign of life for {silent:.0f} s"
                self._send({"kill": str(directory)})

    def _answers(self, patience: float) -> list[tuple[Path, Event]]:
        """Runs that have ended, as the server says; all of them where it has died."""
        ended: list[tuple[Path, Event]] = []
        for answer in self._answers_of.read(patience):
            directory = Path(answer["directory"])
            if "started" in answer:
                self._running[directory].last_sign = time.monotonic()
            else:
                exit_ = {"event": "exit", "code": answer["code"], "lost": answer["code"] < 0}
                ended.append((directory, exit_))
        if self._answers_of.ended:
            self._reap()
            answered = dict(ended)
            ended += [(directory, {"event": "exit", "code": -signal.SIGKILL, "lost": True})
                      for directory in self._running if directory not in answered]
        return ended

    def _reap(self) -> None:
        """The server was killed, and its runs with it; begin anew."""
        self._server.wait()
        for stream in (self._server.stdin, self._server.stdout):
            assert stream is not None
            stream.close()
        self._server = self._serve(server_process.spawned)

    def _send(self, message: dict[str, Any]) -> None:
        assert self._server.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has died: `_answers` sees it
            os.write(self._server.stdin.fileno(), f"{json.dumps(message)}\n".encode())

    def close(self) -> None:
        server = self._server
        assert server.stdin is not None and server.stdout is not None
        server.stdin.close()
        if not self._running:  # it may still be importing; there is nothing to stop gently
            server.kill()
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(TO_SAVE + 5)
        finally:  # also where a second Ctrl-C does not wait: its runs die with it
            server.kill()
            server.wait()
        server.stdout.close()
        self._running.clear()


class _Tail:
    """Reads the whole lines that were added to a file."""

    def __init__(self, path: Path) -> None:
        self.path, self.offset = path, 0

    def read(self) -> Iterator[Event]:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self.offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self.offset += len(line)
                with contextlib.suppress(ValueError):  # torn, on a full disk: its run has failed
                    yield json.loads(line)
