"""The processes of one DDP run: started together, ended together.

Lightning's own launcher repeats the command line in every rank, and where a rank dies it kills
the main process. Here the ranks are forks of one supervisor, which trains nothing and survives
them. It also holds the store through which they meet, on a port that the system chose, so that
runs side by side never meet in one.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from ftlab.studies.engine import EVENTS, OUTPUT

POLL = 0.05
PARTING = 2.0  # seconds from one rank's failure to the end of the others


def supervise(directory: Path, specification: dict[str, Any], threads: int | None) -> int:
    """Execute a run with `trainer.devices` ranks; the exit code.

    Where a rank fails the others are ended, and the last event `failed` names it. Where it was
    killed by a signal, the supervisor dies of the same.
    """
    world = specification["trainer"]["devices"]
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(128)
    each = max(1, threads // world) if threads else 1
    ranks = {
        _fork(directory, specification, rank, world, listening, each): rank for rank in range(world)
    }
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, not in __all__

    host, port = listening.getsockname()
    store = TCPStore(host, port, is_master=True, wait_for_workers=False,
                     master_listen_fd=listening.detach())
    ended = _wait(ranks, directory)
    del store
    culprit = _culprit(ended, directory)
    if culprit is None:
        return 0
    rank, code, reason = culprit
    with (directory / EVENTS).open("a", encoding="utf-8") as events:
        print(json.dumps({"event": "failed", "rank": rank, "reason": reason}), file=events)
    if code < 0:
        os.kill(os.getpid(), -code)
        signal.pause()
    return 1


def _fork(directory: Path, specification: dict[str, Any], rank: int, world: int,
          listening: socket.socket, threads: int) -> int:
    from ftlab.studies.server import die_with, redirect

    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    die_with(parent)
    host, port = listening.getsockname()
    listening.close()
    if rank:
        redirect(directory / output_of(rank))
    # as torchrun tells its processes; the store is the supervisor's
    os.environ |= {
        "MASTER_ADDR": host, "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True",
        "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0",
        "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world),
        "TORCHELASTIC_RUN_ID": directory.name,
    }
    from ftlab.studies.process import execute

    code = execute(directory, specification, threads, rank)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def output_of(rank: int) -> str:
    """File of what a rank prints."""
    return OUTPUT if rank == 0 else f"output.rank{rank}.log"


def _wait(ranks: dict[int, int], directory: Path) -> list[tuple[int, int]]:
    """(rank, exit code) in the order of their ends; after a failure the others are killed."""
    ended: list[tuple[int, int]] = []
    kill_at = 0.0
    while ranks:
        for pid in list(ranks):
            gone, status = os.waitpid(pid, os.WNOHANG)
            if gone:
                ended.append((ranks.pop(pid), os.waitstatus_to_exitcode(status)))
                if ended[-1][1] and not kill_at:
                    kill_at = time.monotonic() + PARTING
        if kill_at and time.monotonic() > kill_at:
            for pid in ranks:
                os.kill(pid, signal.SIGKILL)
            for pid in ranks:
                os.waitpid(pid, 0)
            return ended
        time.sleep(POLL)
    return ended


def _culprit(ended: list[tuple[int, int]], directory: Path) -> tuple[int, int, str] | None:
    """The rank to blame, its exit code and reason; None where all went well.

    A rank that dies without a word is to blame before one that complains, since the others
    complain of its silence; else the first that complained.
    """
    failed = [(rank, code) for rank, code in ended if code]
    if not failed:
        return None
    complaints: dict[int, str] = {}
    for line in (directory / EVENTS).read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if event["event"] == "failed":
            complaints.setdefault(event["rank"], event["reason"])
    for rank, code in failed:
        if rank not in complaints:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
            return rank, code, f"rank {rank} {how}"
    rank = next(iter(complaints))
    return rank, dict(failed).get(rank, 1), f"rank {rank}: {complaints[rank]}"
