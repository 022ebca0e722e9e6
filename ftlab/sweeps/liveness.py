"""The coordinators that hold trials: a coordinator's name, and whether it still lives."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Owner:
    """A coordinator, as others see it.

    Attributes:
        name: of this coordinator alone.
        machine: names a machine and its processes' numbers; empty where they cannot be read.
        process: its number and the time it was started.
        host: what people call the machine.
    """

    name: str
    machine: str
    process: str
    host: str

    @classmethod
    def this(cls) -> Owner:
        """The present process."""
        return cls(uuid.uuid4().hex[:12], _machine(), f"{os.getpid()} {_started(os.getpid())}",
                   socket.gethostname())

    def record(self, beat: int) -> dict[str, Any]:
        """Its record in the storage."""
        return {"beat": beat, "machine": self.machine, "process": self.process, "host": self.host}


class LivenessWatch:
    """Finds which owners are gone, without comparing clocks of different machines.

    An owner is gone when its process is (on our machine), or when we have watched its beat for
    `lease` seconds of our own clock and it did not change. A time in which we did not look shows
    little: what kept us from looking (an outage, a lock that another held, a pause of our own)
    may have kept the owner from its beat.

    Args:
        lease: seconds.
    """

    def __init__(self, lease: float) -> None:
        self.lease = lease
        self._machine = _machine()
        self._seen: dict[str, _Seen] = {}

    def here(self, record: Mapping[str, Any]) -> bool:
        """Return whether an owner works on our machine, by its record."""
        return bool(self._machine) and record["machine"] == self._machine

    def look(self, name: str, record: Mapping[str, Any] | None) -> None:
        """Take notice of an owner's record (None: it never beat)."""
        now, beat = time.monotonic(), record["beat"] if record else -1
        seen = self._seen.get(name)
        if seen is None or seen.beat != beat:
            self._seen[name] = _Seen(beat, now, beats=0 if seen is None else seen.beats + 1)
        else:
            seen.silent += min(now - seen.at, self.lease / 3)  # who beats looks more often
            seen.at = now

    def lives(self, name: str, record: Mapping[str, Any]) -> bool:
        """Return whether an owner is known to live: its process does, or we have seen it beat."""
        if self.here(record):
            return not self.gone(name, record)
        self.look(name, record)
        return self._seen[name].beats > 0

    def gone(self, name: str, record: Mapping[str, Any] | None) -> bool:
        """Return whether an owner is gone, by its present record."""
        self.look(name, record)
        if record and self.here(record):
            pid, started = record["process"].split()
            if not _lives(int(pid), started):
                return True
        return self._seen[name].silent > self.lease


@dataclass
class _Seen:
    """An owner's last beat, when we last looked, how long it was silent, and how often it beat."""

    beat: int
    at: float
    silent: float = 0.0
    beats: int = 0


def _machine() -> str:
    """A boot of a machine and a namespace of process numbers (containers have their own)."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return ""


def _lives(pid: int, started: str) -> bool:
    """Return whether a process of our machine lives; in doubt it does."""
    now = _started(pid)
    if now:
        return now == started
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # of another user, whose processes /proc hides from us
    return False  # ours, and dead: its parent has not asked for it yet


def _started(pid: int) -> str:
    """Start time of a live process, in clock ticks since boot; empty where there is none."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = status.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]
