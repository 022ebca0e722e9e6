"""The work of a run's process: build what the specification says, execute, report."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import signal
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlab.backbones import cache_folder
from ftlab.errors import FtlabError
from ftlab.redaction import redact
from ftlab.studies.engine import EVENTS, STOP, UNWRITABLE, Event

if TYPE_CHECKING:
    from ftlab.training.run import Run, Stage


_CAUGHT = re.compile(r"(\w+: )?Caught \w+ in ")  # how torch raises an error of a loader's process


def execute(
    directory: Path, specification: dict[str, Any], threads: int | None,
    report: Callable[[Event], None], held: Run | None = None,
) -> int:
    """Execute a run, or one rank of it.

    Args:
        directory: of the run.
        specification: of the run.
        threads: of the CPU; None for the libraries' own choice.
        report: takes the events.
        held: a run whose backbone and data are its own; None to build them.

    Returns:
        0 after an event `done`, or 1 after an event `failed`. A SIGTERM during the fit, which
        Lightning turns into an exception, ends the process as SIGTERM does.
    """
    import torch
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    from ftlab.training import execute, trial

    if threads is not None:
        torch.set_num_threads(threads)
    _note_caches([report])
    try:
        task = built(directory, specification, held)
        if specification.get("search"):
            metrics = trial.search(task, report, (directory / STOP).exists)
        else:
            metrics = execute.execute(task, report)
        report({"event": "done", "metrics": metrics})
    except SIGTERMException:
        die_of(signal.SIGTERM)
    # The process's last resort: whatever it was, `sys.exit` too, this run alone fails, and says why.
    except BaseException as error:  # noqa: BLE001
        return _end(report, error)
    return 0


def execute_pack(
    directory: Path, members: list[dict[str, Any]], threads: int | None,
    report: Callable[[Event], None],
) -> int:
    """Execute the runs of a pack, each to an event `done` or `failed`.

    Returns:
        0; 1 after an event `failed` of no member, whose fault it may not be. SIGTERM as in `execute`.
    """
    import torch
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    from ftlab.training.shared_fit import execute_together

    if threads is not None:
        torch.set_num_threads(threads)
    try:
        runs, reports, stops = [], [], []
        for number, specification in enumerate(members):
            folder = directory / str(number)
            folder.mkdir(exist_ok=True)  # a node has none
            runs.append(built(folder, specification))
            reports.append(_of(number, report))
            stops.append((folder / STOP).exists)
        _note_caches(reports)
        trials = bool(members[0].get("search"))
        results = execute_together(runs, reports, stops if trials else None)
    except SIGTERMException:
        die_of(signal.SIGTERM)
    # as in `execute`, but of all: the coordinator has them run again, each by itself
    except BaseException as error:  # noqa: BLE001
        return _end(report, error)
    for send, result in zip(reports, results, strict=True):
        if isinstance(result, Exception):
            # short of memory that others took too, or of what was done for all: no fault of its own
            shared = isinstance(result, MemoryError | torch.OutOfMemoryError)
            shared |= sum(result is other for other in results) > 1
            send(_failed(result) | ({"alone": True} if shared else {}))
        else:
            send({"event": "done", "metrics": result})
    return 0


class _Notes(logging.Handler):
    """Makes what the caches complain of a note of runs, whose output goes when they are finished."""

    def __init__(self, reports: Sequence[Callable[[Event], None]]) -> None:
        super().__init__()
        self.reports = reports

    def emit(self, record: logging.LogRecord) -> None:
        for report in self.reports:
            report({"event": "note", "text": record.getMessage()})


def _note_caches(reports: Sequence[Callable[[Event], None]]) -> None:
    logging.getLogger(cache_folder.LOGGER).addHandler(_Notes(reports))


def _of(member: int, report: Callable[[Event], None]) -> Callable[[Event], None]:
    return lambda event: report({**event, "member": member})


def built(directory: Path, specification: dict[str, Any], held: Run | None = None) -> Run:
    """The run that a specification says.

    Args:
        directory: of the run.
        specification: of the run.
        held: a run whose backbone and data are its own; None to build them.
    """
    from ftlab.studies.allowed_packages import admit
    from ftlab.studies.components import build
    from ftlab.training.run import Run
    from ftlab.training.trainer_settings import TrainerSettings

    admit(specification.get("allow", ()))
    return Run(
        backbone=held.backbone if held else build(specification["backbone"]),
        data=held.data if held else build(specification["data"]),
        technique=build(specification["technique"]),
        settings=TrainerSettings(**specification["trainer"]),
        seed=specification["seed"],
        select_by=specification["select_by"],
        directory=directory,
        record=specification,
        plain=specification.get("plain", False),
        before=[_stage(stage) for stage in specification.get("before", ())],
        retain={} if specification.get("search") else  # a trial is not measured
        {name: build(data) for name, data in specification.get("retain", {}).items()},
        quantized=() if specification.get("search") else tuple(specification.get("quantized", ())),
    )


def _stage(stage: dict[str, Any]) -> Stage:
    from ftlab.studies.components import build
    from ftlab.training.run import Stage
    from ftlab.training.trainer_settings import TrainerSettings

    data = stage["data"]
    return Stage(build(stage["technique"]), TrainerSettings(**stage["trainer"]),
                 None if data is None else build(data), stage["select_by"], stage["carry"],
                 {name: stage[name] for name in ("technique", "data", "trainer")})


def _end(report: Callable[[Event], None], error: BaseException) -> int:
    """Say why a run failed, in its journal, or where that cannot be written by the exit code."""
    try:
        report(_failed(error))
    except OSError:
        return UNWRITABLE
    return 1


def _failed(error: BaseException) -> Event:
    traceback.print_exception(error)
    return {"event": "failed", "reason": first_line(error), "peer": blames_peer(error)}


def journal(directory: Path) -> Callable[[Event], None]:
    """Appends events to a run's file: each whole with one write, since processes may share it."""
    file = os.open(directory / EVENTS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)

    def write(event: Event) -> None:
        line = f"{json.dumps(event)}\n".encode()
        if os.write(file, line) < len(line):  # the rest of the line would not fit either
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(directory / EVENTS))

    return write


def first_line(error: BaseException) -> str:
    """An error in one line, for a table."""
    what = error.what if isinstance(error, FtlabError) else f"{type(error).__name__}: {error}"
    lines = what.splitlines() or [type(error).__name__]
    if _CAUGHT.match(lines[0]):  # a traceback follows, and what it was stands at its end
        lines = [line for line in lines if line.strip() and not line[0].isspace()][-1:]
        if isinstance(error, FtlabError):
            return redact(lines[0].partition(": ")[2])[:500]
    return redact(lines[0])[:500]


def blames_peer(error: BaseException) -> bool:
    """Return whether an error says that another rank has gone, not that this one is at fault."""
    from torch.distributed import DistError

    text = str(error)
    return isinstance(error, DistError) or "gloo/transport" in text or "NCCL" in text


def die_of(number: int) -> int:
    """End this process by a signal, as if nothing handled it."""
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    while True:
        signal.pause()
