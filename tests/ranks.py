"""Runs through an engine of this machine, and the processes that they leave."""

import contextlib
import time
from pathlib import Path

from ftlab.studies.engine import Event
from ftlab.studies.local_engine import LocalEngine


def run(engine: LocalEngine, *folders: Path) -> dict[Path, list[Event]]:
    """Runs go on together until each has ended; what each reported."""
    said: dict[Path, list[Event]] = {folder: [] for folder in folders}
    for folder in folders:
        engine.start(folder)
    until = time.monotonic() + 300
    while not all(events and events[-1]["event"] == "exit" for events in said.values()):
        assert time.monotonic() < until, said
        for folder, event in engine.events(0.1):
            event["seen"] = time.monotonic()
            said[folder].append(event)
    return said


def descendants(pid: int) -> list[int]:
    """Processes below a process that are no zombies."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                children.setdefault(int(parent), []).append(int(stat.parent.name))
    found, waiting = [], [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def nothing_is_left(engine: LocalEngine) -> bool:
    until = time.monotonic() + 60
    while left := descendants(engine._server.pid):
        if time.monotonic() > until:
            return not left
        time.sleep(0.05)
    return True
