"""The command on a node that is not the first: it executes its share of each run that the first begins."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ftlab.errors import FtlabError
from ftlab.studies.engine import OUTPUT, SPECIFICATION, Engine, Requirements, died
from ftlab.studies.nodes import LEFT, OVER, RUN, Node

POLL = 0.2  # seconds from one look for another run to the next


def follow(node: Node, engine: Engine, need: Requirements | None, say: Callable[[str], None],
           folder: Path | None = None) -> int:
    """Execute this node's share of the runs until there are no more.

    Its ranks write nothing that is kept: results are the first node's. A run that fails here fails
    there, with the reason, and the next one begins.

    Args:
        node: this one.
        engine: of this machine; closed at the end.
        need: of the largest run; None where the engine is prepared.
        say: takes one line for each run.
        folder: in which a temporary one is made for the runs; None for the system's.

    Returns:
        How many runs failed.

    Raises:
        FtlabError: the first node's command is gone, or did not come.
        InputError: this machine has no room for its share.
    """
    from torch.distributed import DistError

    failed = number = 0
    work = Path(tempfile.mkdtemp(prefix="ftlab-node-", dir=folder))
    try:
        if need is not None:
            engine.prepare(need, 1, None)  # how long a run may be silent is the first node's to judge
        say(f"{node.title} of {node.count}: waits for runs of {node.host}:{node.port}")
        store = node.store()
        while True:
            if store.check([RUN.format(number + 1)]):
                number += 1
                message = json.loads(store.get(RUN.format(number)))
                if node.number < message["specification"]["trainer"]["nodes"]:
                    failed += _share(work / str(number), message, engine, say)
            elif store.check([OVER]):
                store.set(LEFT.format(node.number), "")
                break
            else:
                time.sleep(POLL)
    except DistError as error:
        raise FtlabError(f"{node.title}: node 0 at {node.host}:{node.port} is gone",
                         "the same command on all nodes continues") from error
    finally:
        engine.close()
        if not failed:
            shutil.rmtree(work, ignore_errors=True)
    return failed


def _share(directory: Path, message: dict[str, Any], engine: Engine, say: Callable[[str], None]) -> bool:
    """Execute the share of one run; whether it failed."""
    directory.mkdir()
    specification = message["specification"] | {"meet": message["meet"]}
    (directory / SPECIFICATION).write_text(json.dumps(specification), encoding="utf-8")
    engine.start(directory)
    reason = ""
    while True:
        for _, event in engine.events(POLL):
            if event["event"] == "failed":
                reason = event["reason"]
            if event["event"] == "exit":
                reason = reason or event.get("reason") or died(event["code"], done=True)
                end = f"failed: {reason} (output: {directory / OUTPUT})" if reason else "done"
                say(f"{message['name']}: {end}")
                return bool(reason)
