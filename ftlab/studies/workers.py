"""Processes that run: a server with the heavy imports done forks one child a run.

`python -m ftlab.studies.workers` serves: a line on its standard input names a run's
specification file; it forks a child for it and answers with JSON lines. When its input ends it
stops the child and itself, so a killed coordinator leaves nothing behind. The child writes
`events.jsonl` and `output.log` beside its specification.
`python -m ftlab.studies.workers SPECIFICATION` executes one run; DDP starts every rank so.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ftlab.errors import FtlabError

SPECIFICATION, EVENTS, OUTPUT = "run.json", "events.jsonl", "output.log"
GRACE = 5.0  # seconds from SIGTERM to SIGKILL


class Workers:
    """The coordinator's side: starts the server, one run at a time, and stops it."""

    def __init__(self) -> None:
        # A session of its own, so that Ctrl-C reaches the coordinator alone.
        self._server = subprocess.Popen(
            [sys.executable, "-m", "ftlab.studies.workers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._busy = False

    def run(self, directory: Path) -> Iterator[dict[str, Any]]:
        """Execute the run whose specification lies in `directory`; yield its events.

        The last event is `exit` with the process's `code`. While nothing happens an event
        `idle` comes a few times a second, so that the caller stays responsive.
        """
        assert self._server.stdin is not None and self._server.stdout is not None
        self._busy = True
        self._server.stdin.write(f"{directory / SPECIFICATION}\n")
        self._server.stdin.flush()
        events = _Tail(directory / EVENTS)
        while True:
            ended = bool(select.select([self._server.stdout], [], [], 0.1)[0])
            yield from events.read()
            if ended:
                answer = self._server.stdout.readline()
                if not answer:
                    raise FtlabError("the worker server died", f"see {directory / OUTPUT}")
                yield from events.read()
                self._busy = False
                yield {"event": "exit", "code": json.loads(answer)["code"]}
                return
            yield {"event": "idle"}

    def close(self) -> None:
        """Stop the server and a run in progress."""
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.close()
        if not self._busy:  # it may still be importing; there is nothing to stop gently
            self._server.kill()
        try:
            self._server.wait(GRACE + 5)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        self._server.stdout.close()


class _Tail:
    """Reads the whole lines that were added to a file."""

    def __init__(self, path: Path) -> None:
        self.path, self.offset = path, 0

    def read(self) -> Iterator[dict[str, Any]]:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self.offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self.offset += len(line)
                yield json.loads(line)


def serve() -> None:
    """The server's loop; see the module."""
    _preload()
    while line := sys.stdin.readline():
        specification = Path(line.rstrip("\n"))
        child = os.fork()
        if child == 0:
            _become_run(specification)
        print(json.dumps({"code": _wait(child)}), flush=True)


def _preload() -> None:
    import lightning  # noqa: F401
    import peft  # noqa: F401
    import torchvision  # noqa: F401
    import transformers  # noqa: F401

    import ftlab.training.run  # noqa: F401


def _wait(child: int) -> int:
    """Exit code of a child (negative: its signal); stops it when the input ends."""
    stop_at = 0.0
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if stop_at:
            time.sleep(0.02)
            if time.monotonic() > stop_at:
                _signal(child, signal.SIGKILL)
        elif select.select([sys.stdin], [], [], 0.02)[0]:  # nothing but its end can come now
            _signal(child, signal.SIGTERM)
            stop_at = time.monotonic() + GRACE


def _signal(child: int, number: signal.Signals) -> None:
    try:
        os.killpg(child, number)  # the run leads a group: DDP's ranks and loaders are in it
    except ProcessLookupError:
        os.kill(child, number)  # not yet a leader


def _become_run(specification: Path) -> None:
    os.setsid()
    output = os.open(specification.parent / OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    several = json.loads(specification.read_text(encoding="utf-8"))["trainer"]["devices"] > 1
    if several:  # every rank repeats this command line
        os.execv(sys.executable, [sys.executable, "-m", "ftlab.studies.workers", str(specification)])
    code = run(specification)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run(specification: Path) -> int:
    """Execute one run; 0, or 1 with an event `failed`."""
    from ftlab.studies.config import build
    from ftlab.training.run import Run, execute
    from ftlab.training.settings import TrainerSettings

    first = int(os.environ.get("LOCAL_RANK", "0")) == 0
    with (specification.parent / EVENTS).open("a", encoding="utf-8") as events:

        def report(event: dict[str, Any]) -> None:
            if first:
                print(json.dumps(event), file=events, flush=True)

        try:
            said = json.loads(specification.read_text(encoding="utf-8"))
            metrics = execute(
                Run(
                    backbone=build(said["backbone"]),
                    data=build(said["data"]),
                    technique=build(said["technique"]),
                    settings=TrainerSettings(**said["trainer"]),
                    seed=said["seed"],
                    select_by=said["select_by"],
                    directory=specification.parent,
                    record=said,
                ),
                report,
            )
        # The process's last resort: whatever it was, this run alone fails, with its reason.
        except Exception as error:  # noqa: BLE001
            traceback.print_exc()
            what = error.what if isinstance(error, FtlabError) else f"{type(error).__name__}: {error}"
            first_line = (what.splitlines() or [type(error).__name__])[0]
            report({"event": "failed", "reason": first_line[:500]})
            return 1
        report({"event": "done", "metrics": metrics})
        return 0


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(run(Path(sys.argv[1])))
    serve()
