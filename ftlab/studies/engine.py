"""The contract of engines, which execute runs, and how a machine is shared out."""

from __future__ import annotations

import os
import signal
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftlab.errors import InputError
from ftlab.wording import counted

SPECIFICATION, EVENTS, OUTPUT, STOP = "run.json", "events.jsonl", "output.log", "stop"
"""Files of a run's folder: what to do, what happened, what it printed, and a wish to end."""
UNWRITABLE = 74
"""The exit code of a run whose reports cannot be written; sysexits(3) calls it EX_IOERR."""

Event = dict[str, Any]
"""A report of a run, with the key `event`.

`progress` (phase, done, total), `metrics` (step, time, metrics), `note` (text), `shortcut` (text:
what is not computed anew, or why all is), `forecast` (what a cache is foreseen to save),
`precision`, `hardware` and `compile` (text: what the run took, what was decided for it and why),
`alive`, `failed` (reason; the last one counts), `done` (metrics); of several runs in one process
`member` says whose, and `failed` may say `alone`: to be run again by itself. From the engine at the
end `exit`: `code`,
negative for a signal; `lost`, whether the process vanished through no fault of its own that is
known, so that another attempt makes sense; `reason`, where the engine has one; `machine_lost`,
where the machine vanished and took the run with it. `environment` (`said`: as in `provenance.here`)
comes from engines whose runs are on other machines than the coordinator.
"""


@dataclass(frozen=True)
class MachineShare:
    """The part of a machine that one run may use.

    Attributes:
        threads: of the CPU, over all its processes; None for the libraries' own choice.
        gpus: ids of its GPUs; empty for none.
    """

    threads: int | None = None
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True)
class Requirements:
    """The requirements of a study's largest run.

    Attributes:
        devices: one for each of its processes on a node.
        accelerator: `auto`, `gpu`, `cpu` or `mps`.
        nodes: machines of one run.
    """

    devices: int = 1
    accelerator: str = "auto"
    nodes: int = 1


class Engine(ABC):
    """Executes runs, each in processes of its own.

    A run is a folder that holds a specification (`SPECIFICATION`); it writes its results there.

    Attributes:
        slots: how many runs go on at a time.
    """

    slots: int

    @abstractmethod
    def prepare(self, need: Requirements, workers: int | None, timeout: float | None) -> None:
        """Find room; once, before the first start.

        Args:
            need: of the largest run.
            workers: runs at a time; None for as many as there is room for.
            timeout: seconds without a sign of life after which a run is ended; None waits for ever.

        Raises:
            InputError: there is no room for one run.
        """

    @abstractmethod
    def start(self, directory: Path) -> None:
        """Begin the run of a folder; at most `slots` at a time."""

    @abstractmethod
    def events(self, patience: float) -> list[tuple[Path, Event]]:
        """The runs' reports since the last call, in order, each run's `exit` last.

        Args:
            patience: seconds to wait at most where nothing has happened.
        """

    @abstractmethod
    def prune(self, directory: Path) -> None:
        """Ask a run to end after its next validation; one of several in a process by its folder."""

    @abstractmethod
    def close(self) -> None:
        """Stop everything; nothing is left behind."""


def died(code: int, done: bool) -> str:
    """The reason why a process that gave none has ended; empty where it did what it should."""
    if code == 0 and done:
        return ""
    if code < 0:
        hint = ", out of memory perhaps" if code == -signal.SIGKILL else ""
        return f"the run's process was killed by {signal.Signals(-code).name}{hint}"
    if code == UNWRITABLE:
        return "the run cannot write what it reports into its folder: the disk is full, perhaps"
    return f"the run's process ended with exit code {code}"


@dataclass(frozen=True)
class Machine:
    """A machine as it is shared out.

    Attributes:
        cores: CPU cores of this process.
        gpus: ids, as CUDA_VISIBLE_DEVICES takes them.
    """

    cores: int
    gpus: tuple[str, ...]

    @classmethod
    def this(cls) -> Machine:
        """The machine that we are on; asks the driver for GPUs without starting CUDA."""
        import torch

        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        count = torch.cuda.device_count()
        names = visible.split(",")[:count] if visible else [str(i) for i in range(count)]
        return cls(cores or 1, tuple(names))

    def shares(self, workers: int | None, devices: int, accelerator: str) -> list[MachineShare]:
        """One share for each run that goes on at a time.

        On GPUs each run has `devices` of its own. On the CPU the cores are one budget of threads,
        since two processes with all threads each are several times slower than two with half.

        Args:
            workers: runs at a time; None for as many as the machine has room for.
            devices: processes of the largest run.
            accelerator: of the runs: `auto`, `gpu`, `cpu` or `mps`.

        Raises:
            InputError: the machine has not so many devices.
        """
        if workers is not None and workers < 1:
            raise InputError(f"--workers {workers}: at least one is needed", "--workers 1")
        if accelerator in ("auto", "gpu") and self.gpus:
            room, what = len(self.gpus) // devices, f"{len(self.gpus)} GPUs"
        elif accelerator == "gpu":
            room, what = 0, "no GPU"
        else:
            room, what = self.cores // devices, f"{self.cores} CPU cores"
        if room < 1:
            fewer = "lower trainer: {devices: ...}"
            raise InputError(f"a run wants {counted(devices, 'device')}, and this machine has {what}",
                             fewer if self.gpus or accelerator != "gpu"
                             else "set trainer: {accelerator: auto}, or run it where there is one")
        if accelerator in ("auto", "gpu") and self.gpus:
            if workers is not None and workers > room:
                raise InputError(f"--workers {workers}: there are GPUs for {room} runs at a time",
                                 f"--workers {room}")
            threads = max(1, self.cores // (workers or room))
            return [MachineShare(threads, self.gpus[i * devices : (i + 1) * devices])
                    for i in range(workers or room)]
        count = workers or room
        if count == 1 and devices == 1:
            return [MachineShare()]
        return [MachineShare(max(1, self.cores // count))] * count
