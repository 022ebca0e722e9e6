"""Who holds trials: a coordinator's name, and whether it still lives."""

from __future__ import annotations

import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Owner:
    """A coordinator, as others see it.

    Attributes:
        name: of this coordinator alone.
        machine: names a machine and its processes' numbers; empty where they cannot be told.
        process: its number and the time it was started.
    """

    name: str
    machine: str
    process: str

    @classmethod
    def this(cls) -> Owner:
        """The present process."""
        return cls(uuid.uuid4().hex[:12], _machine(), f"{os.getpid()} {_started(os.getpid())}")

    def record(self, beat: int) -> dict[str, Any]:
        """What the storage holds of it."""
        return {"beat": beat, "machine": self.machine, "process": self.process}


class Watch:
    """Tells which owners are gone, without comparing clocks of different machines.

    An owner is gone when its process is (on our machine), or when its beat has not changed for
    `lease` seconds of our own clock.

    Args:
        lease: seconds.
    """

    def __init__(self, lease: float) -> None:
        self.lease = lease
        self._machine = _machine()
        self._seen: dict[str, tuple[int, float]] = {}

    def forget(self) -> None:
        """Begin anew: beats may have been missed."""
        self._seen.clear()

    def gone(self, name: str, record: dict[str, Any] | None) -> bool:
        """Whether an owner is gone, by its record (None: it never beat)."""
        if record and record["machine"] and record["machine"] == self._machine:
            pid, started = record["process"].split()
            if _started(int(pid)) != started:
                return True
        beat = record["beat"] if record else -1
        last, since = self._seen.get(name, (None, 0.0))
        if beat != last:
            self._seen[name] = beat, time.monotonic()
            return False
        return time.monotonic() - since > self.lease


def _machine() -> str:
    """A boot of a machine and a namespace of process numbers (containers have their own)."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return ""


def _started(pid: int) -> str:
    """Start time of a live process, in clock ticks since boot; empty where there is none."""
    try:
        said = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = said.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]
