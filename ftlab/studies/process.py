"""What the process of a run does: build what the specification says, execute, report."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Any

from ftlab.errors import FtlabError
from ftlab.studies.engine import EVENTS, SPECIFICATION, STOP


def main(directory: Path, threads: int | None) -> int:
    """Execute the run of a folder, with its ranks where it has several; the exit code."""
    specification = json.loads((directory / SPECIFICATION).read_text(encoding="utf-8"))
    if specification["trainer"]["devices"] > 1:
        from ftlab.studies.ranks import supervise

        return supervise(directory, specification, threads)
    return execute(directory, specification, threads)


def execute(directory: Path, said: dict[str, Any], threads: int | None, rank: int = 0) -> int:
    """Execute a run, or one rank of it; 0, or 1 with an event `failed`.

    The first rank reports; the others only if they fail.
    """
    import torch

    from ftlab.studies.config import build
    from ftlab.training import run, search
    from ftlab.training.fit import Run
    from ftlab.training.settings import TrainerSettings

    if threads is not None:
        torch.set_num_threads(threads)
    with (directory / EVENTS).open("a", encoding="utf-8") as events:

        def write(event: dict[str, Any]) -> None:
            print(json.dumps(event), file=events, flush=True)

        def report(event: dict[str, Any]) -> None:
            if rank == 0:
                write(event)

        try:
            task = Run(
                backbone=build(said["backbone"]),
                data=build(said["data"]),
                technique=build(said["technique"]),
                settings=TrainerSettings(**said["trainer"]),
                seed=said["seed"],
                select_by=said["select_by"],
                directory=directory,
                record=said,
            )
            if said.get("search"):
                metrics = search.search(task, report, (directory / STOP).exists)
            else:
                metrics = run.execute(task, report)
        # The process's last resort: whatever it was, this run alone fails, with its reason.
        except Exception as error:  # noqa: BLE001
            traceback.print_exc()
            what = error.what if isinstance(error, FtlabError) else f"{type(error).__name__}: {error}"
            first_line = (what.splitlines() or [type(error).__name__])[0]
            write({"event": "failed", "rank": rank, "reason": first_line[:500]})
            return 1
        report({"event": "done", "metrics": metrics})
        return 0
