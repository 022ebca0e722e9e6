"""The processes of a command in a folder of its own, and what they left in its stores."""

import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import warm_processes
from optuna.trial import FrozenTrial

from ftlab.sweeps.storage import Storage
from ftlab.tracking.tracker import Tracker

TESTS = Path(__file__).resolve().parent


def begin(folder: Path, *arguments: object, **environment: str) -> warm_processes.Process:
    """`ftlab ARGUMENTS` in `folder`; what it prints goes to `said.log` there."""
    with (folder / "said.log").open("a") as said:
        return warm_processes.start(
            "ftlab.cli", *arguments, folder=folder, stdout=said, stderr=said,
            environment={**os.environ, "PYTHONPATH": str(TESTS), "COLUMNS": "160", **environment})


def said(folder: Path) -> str:
    """What the folder's commands have printed so far."""
    return (folder / "said.log").read_text()


def alive(folder: Path) -> dict[int, str]:
    """Processes whose current folder is `folder`: number -> their command line."""
    found = {}
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and (process / "cwd").readlink() == folder:
                text = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                if text:  # a zombie has none
                    found[int(process.name)] = text
        except OSError:  # it has ended, or is another user's
            continue
    return found


def output_of(pid: int) -> str:
    """Where a process prints; empty where it has ended."""
    try:
        return os.readlink(f"/proc/{pid}/fd/1")
    except OSError:
        return ""


def wait_for(ready: Callable[[], object], seconds: float = 300.0) -> None:
    until = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < until, "nothing happened"
        time.sleep(0.02)


def trials(folder: Path) -> dict[str, list[FrozenTrial]]:
    """The trials in the folder's journal, by the cell's title."""
    storage = Storage(str(folder / "optuna.journal"))
    return {search.study_name: storage.backend.get_all_trials(search._study_id)
            for search in storage.backend.get_all_studies()}


def records(folder: Path, kind: str = "trial") -> Counter[tuple[str, str]]:
    """How many runs of a kind have which state and which of MLflow's statuses."""
    tracker = Tracker(f"sqlite:///{folder}/mlflow.db")
    found = tracker._runs.search(tracker._runs.experiment("small"), f"tags.`ftlab.kind` = '{kind}'")
    return Counter((run.data.tags.get("ftlab.state", ""), run.info.status) for run in found)
