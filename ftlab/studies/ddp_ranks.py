"""The processes of one run on several devices of a machine: started together, ended together.

Lightning's own launcher repeats the command line in every rank, and where a rank dies it kills
the main process. Here the ranks are forks of one supervisor, which trains nothing and survives
them. It also holds the store through which they meet, on a port that the system chose, so that
runs side by side never meet in one.

Of a run of several nodes each has its supervisor. The first one's holds the store, at the address by which
the nodes meet, and there the supervisors see each other's ends (`node_links.py`).

Each rank has a pipe to the supervisor: signs of life, then `failed` or `done`.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from ftlab.studies.engine import OUTPUT, Event
from ftlab.studies.forked import die_with, leave, redirect
from ftlab.studies.json_lines import LineReader
from ftlab.studies.meeting import Meeting
from ftlab.studies.node_links import Ending, NodeLinks
from ftlab.studies.nodes import Node
from ftlab.studies.run_process import die_of, execute, journal

POLL = 0.05
PARTING = 2.0  # seconds from one rank's failure to the end of the others
FIRST = 1.0  # seconds by which a rank must have fallen silent before the others to be blamed


@dataclass
class _Rank:
    """One rank, as its supervisor sees it.

    Attributes:
        number: from 0.
        pid: of its process.
        pipe: its messages.
        last_sign: when its last message came.
        last: its event `failed` or `done`, and when it came.
        code: of its exit, and when that was seen.
    """

    number: int
    pid: int
    pipe: LineReader
    last_sign: float
    last: tuple[float, Event] | None = None
    code: tuple[float, int] | None = None

    def look(self) -> None:
        """Read its messages, and see if it has ended."""
        ended, status = os.waitpid(self.pid, os.WNOHANG)
        now = time.monotonic()
        for event in self.pipe.read(0.0):  # after `waitpid`, so that nothing is missed
            self.last_sign = now
            if event["event"] in ("failed", "done"):
                self.last = now, event
        if ended:
            self.code = now, os.waitstatus_to_exitcode(status)

    @property
    def failed(self) -> bool:
        """Return whether it has ended otherwise than it should."""
        done = self.last is not None and self.last[1]["event"] == "done"
        return self.code is not None and not (self.code[1] == 0 and done)

    @property
    def stopped(self) -> bool:
        """Return whether a signal keeps it from running (Linux)."""
        with contextlib.suppress(OSError):  # it has just ended
            stat = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8")
            return stat.rpartition(")")[2].split()[0] in "Tt"
        return False

    def end(self) -> None:
        """Kill it, unless it has ended."""
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


class RankFailure(NamedTuple):
    """The reason why a run of several ranks failed; the exit code is negative for a signal.

    `peer` says that the rank only complains of another.
    """

    rank: int
    code: int
    reason: str
    peer: bool = False


def supervise(directory: Path, specification: dict[str, Any], threads: int | None,
              node: Node | None = None) -> int:
    """Execute a run with `trainer.devices` ranks on each of its nodes; the exit code.

    Where a rank fails the others are ended, and the last event, `failed`, names it. Where it was
    killed by a signal, the supervisor dies of the same.

    Args:
        directory: of the run, or of this node's share of it.
        specification: of the run; beyond the first node its `meet` says where the store is.
        threads: of the CPU.
        node: this one, where the run may be of several.
    """
    place = Meeting.of(specification, node)
    share = max(1, threads // place.devices) if threads else 1
    first = place.node * place.devices
    ranks = [_fork(directory, specification, first + n, place, share) for n in range(place.devices)]
    asked = _Asked(ranks)
    store = place.store()
    links = None
    if node is not None and place.nodes > 1:
        links = NodeLinks(node, place.nodes, store)
        if place.listening is not None:
            node.begin({"name": directory.name, "specification": specification,
                        "meet": [place.host, place.port]})
    _wait(ranks, asked, links)
    # a rank that was stopped and wakes to say where it stands may end well: too late, it is being ended
    blame = asked.blame or (None if asked.to_end else to_blame(ranks))
    for rank in ranks:
        rank.end()
    if links is not None:
        blame = _agreed(links, blame, asked.to_end)
    if blame is not None:
        journal(directory)({"event": "failed", "rank": blame.rank, "reason": blame.reason})
    if links is not None:
        links.part()
    del store
    if asked.to_end:
        die_of(signal.SIGTERM)
    if blame is None:
        return 0
    return die_of(-blame.code) if blame.code < 0 else 1


def _agreed(links: NodeLinks, blame: RankFailure | None, told: bool) -> RankFailure | None:
    """The failure that the nodes agree on."""
    if blame is None and told:
        blame = RankFailure(-1, 1, "was told to end")
    end = links.end(Ending(*blame) if blame is not None else Ending())
    return RankFailure(*astuple(end)) if end.code else None


def _fork(directory: Path, specification: dict[str, Any], rank: int, place: Meeting,
          threads: int) -> _Rank:
    parent = os.getpid()
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return _Rank(rank, child, LineReader(reading), time.monotonic())
    _be_rank(directory, specification, rank, place, threads, parent, writing)


def _be_rank(directory: Path, specification: dict[str, Any], rank: int, place: Meeting,
             threads: int, parent: int, pipe: int) -> NoReturn:
    die_with(parent)
    if place.listening is not None:
        place.listening.close()
    if rank:
        redirect(directory / output_of(rank))
    # as torchrun sets them for its processes; the store is the supervisor's
    os.environ |= {
        "MASTER_ADDR": place.host, "MASTER_PORT": str(place.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "RANK": str(rank), "LOCAL_RANK": str(rank % place.devices), "GROUP_RANK": str(place.node),
        "WORLD_SIZE": str(place.devices * place.nodes), "LOCAL_WORLD_SIZE": str(place.devices),
        "TORCHELASTIC_RUN_ID": directory.name,
    }
    if sys.platform == "linux" and place.on_one_machine:  # nobody outside need reach them
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    write = journal(directory) if rank == 0 else None
    os.set_blocking(pipe, False)

    def report(event: Event) -> None:
        ends = event["event"] in ("failed", "done")
        if write is not None and event["event"] != "failed":
            write(event)
        message = {key: event[key] for key in ("event", "reason", "peer") if key in event}
        with contextlib.suppress(BlockingIOError):  # full: the supervisor does not listen
            os.write(pipe, f"{json.dumps(message if ends else {'event': 'alive'})}\n".encode())

    leave(lambda: execute(directory, specification, threads, report))


def output_of(rank: int) -> str:
    """File of what a rank prints."""
    return OUTPUT if rank == 0 else f"output.rank{rank}.log"


class _Asked:
    """The signals that the supervisor has received.

    SIGUSR1 (each rank then writes where it stands): see who is stopped, before the server lets
    them all continue. SIGTERM: end, and name the rank that kept the others waiting.
    """

    def __init__(self, ranks: Sequence[_Rank]) -> None:
        self.ranks = ranks
        self.to_look = self.to_end = False
        self.blame: RankFailure | None = None
        faulthandler.unregister(signal.SIGUSR1)  # the supervisor's own stack is of no use
        signal.signal(signal.SIGUSR1, lambda *_: setattr(self, "to_look", True))
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "to_end", True))

    def look(self) -> None:
        """Find who keeps the others waiting."""
        if self.to_look or self.to_end:
            self.to_look = False
            self.blame = self.blame or who_is_silent(self.ranks)


def _wait(ranks: Sequence[_Rank], asked: _Asked, links: NodeLinks | None = None) -> None:
    """Until all ranks have ended, on other nodes too, or their time after one's failure, or a signal."""
    kill_at = 0.0
    while not asked.to_end:
        for rank in ranks:
            if rank.code is None:
                rank.look()
        asked.look()
        failed = any(rank.failed for rank in ranks)
        if all(rank.code is not None for rank in ranks) and (failed or links is None or links.over):
            return
        if not kill_at and (failed or (links is not None and links.failures())):
            kill_at = time.monotonic() + PARTING
        if kill_at and time.monotonic() > kill_at:
            return
        time.sleep(POLL)
    asked.look()


def to_blame(ranks: Sequence[_Rank]) -> RankFailure | None:
    """The first rank that failed by itself; None where all went well.

    A rank that complains of another's silence is to blame only where nobody else is: it may do
    so before the other's end is seen.
    """
    failures: list[tuple[bool, float, RankFailure]] = []
    for rank in ranks:
        if not rank.failed:
            continue
        assert rank.code is not None
        when, code = rank.code
        if rank.last is not None and rank.last[1]["event"] == "failed":
            when, event = rank.last
            blame = RankFailure(rank.number, max(code, 1), f"rank {rank.number}: {event['reason']}",
                                bool(event.get("peer")))
            failures.append((blame.peer, when, blame))
            continue
        how = (f"was killed by {signal.Signals(-code).name}" if code < 0 else
               f"exited with code {code} before the end")
        failure = RankFailure(rank.number, code or 1, f"rank {rank.number} {how}")
        failures.append((False, when, failure))
    return min(failures)[2] if failures else None


def who_is_silent(ranks: Sequence[_Rank]) -> RankFailure | None:
    """The rank that keeps the others waiting, where that can be known."""
    there = [rank for rank in ranks if rank.code is None]
    for rank in there:
        if rank.stopped:
            return RankFailure(rank.number, 1, f"rank {rank.number} was stopped by a signal")
    if not there:
        return None
    first, *others = sorted(there, key=lambda rank: rank.last_sign)
    if not others or others[0].last_sign - first.last_sign < FIRST:
        return None
    return RankFailure(first.number, 1, f"rank {first.number} fell silent first")
