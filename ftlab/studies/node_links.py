"""How the supervisors of one run, one on each of its nodes, see each other's ends."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from ftlab.studies.nodes import JOIN, Node

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]  # public, not in __all__

BEAT = 0.3  # seconds from one sign of life to the next
LAST = 4.0  # seconds that the first node waits for the others to end too
SILENCE = 10.0  # seconds without one until a node counts as lost


@dataclass(frozen=True)
class Ending:
    """The end of a node's share of a run.

    Attributes:
        rank: that failed; -1 for none in particular.
        code: of its exit, negative for a signal; 0 where all went well.
        reason: empty where all went well.
        peer: whether it only says that another rank has gone.
    """

    rank: int = -1
    code: int = 0
    reason: str = ""
    peer: bool = False


class NodeLinks:
    """The ends of the other nodes' ranks, and their supervisors' signs of life in the run's store.

    A thread talks to the store, since a machine that has lost its power answers no more, nor ever
    says so. No clocks are compared.

    Args:
        node: this one.
        count: of the run's nodes.
        store: of the run, on the first node.
    """

    def __init__(self, node: Node, count: int, store: Store) -> None:
        self._node, self._store = node, store
        self._others = [number for number in range(count) if number != node.number]
        self._own: Ending | None = None
        self._published, self._leaving, self._left = threading.Event(), threading.Event(), threading.Event()
        self._gone: set[int] = set()
        self._beats: dict[int, tuple[str, float]] = {}
        self._titles: dict[int, str] = {}
        self._ends: dict[int, Ending] = {}
        self._begun = self._answered = time.monotonic()
        self._broken = False
        threading.Thread(target=self._talk, daemon=True).start()

    def _talk(self) -> None:
        from torch.distributed import DistError

        beat = 0
        try:
            self._store.set(f"ftlab/title/{self._node.number}", self._node.title)
            while True:
                self._store.set(f"ftlab/beat/{self._node.number}", str(beat := beat + 1))
                self._read()
                if self._own is not None:
                    self._store.set(f"ftlab/end/{self._node.number}", json.dumps(asdict(self._own)))
                    self._published.set()
                if self._leaving.is_set():
                    self._store.set(f"ftlab/left/{self._node.number}", "")
                    self._left.set()
                self._answered = time.monotonic()
                time.sleep(BEAT / 3) if self._leaving.is_set() else self._leaving.wait(BEAT)
        except DistError:  # its server has ended
            self._broken = True
            self._published.set()
            self._left.set()

    def _read(self) -> None:
        for other in self._others:
            end, beat = f"ftlab/end/{other}", f"ftlab/beat/{other}"
            if other not in self._ends and self._store.check([end]):
                self._ends[other] = Ending(**json.loads(self._store.get(end)))
            if self._store.check([f"ftlab/left/{other}"]):
                self._gone.add(other)
            if self._store.check([beat]):
                found = self._store.get(beat).decode()
                if self._beats.get(other, ("", 0.0))[0] != found:
                    self._beats[other] = found, time.monotonic()
                if other not in self._titles:
                    self._titles[other] = self._store.get(f"ftlab/title/{other}").decode()

    def _title(self, number: int) -> str:
        return self._titles.get(number, f"node {number}")

    def failures(self) -> list[Ending]:
        """The ends of the others that were none as they should be."""
        now, found = time.monotonic(), []
        if self._node.number and 0 not in self._ends and (self._broken or now - self._answered > SILENCE):
            return [Ending(code=1, reason=f"{self._title(0)} is gone")]
        for other in self._others:
            if (end := self._ends.get(other)) is not None:
                if end.code:
                    found.append(Ending(end.rank, end.code, f"{self._title(other)}: {end.reason}", end.peer))
            elif other in self._beats:
                if now - self._beats[other][1] > SILENCE:
                    found.append(Ending(code=1, reason=f"{self._title(other)} fell silent"))
            elif now - self._begun > JOIN:
                found.append(Ending(code=1, reason=f"node {other} did not join for {JOIN:.0f} s"))
        return found

    @property
    def over(self) -> bool:
        """Return whether all others have ended, or, of a node that is not the first, need not have."""
        return bool(self._node.number) or len(self._ends) == len(self._others)

    def end(self, own: Ending) -> Ending:
        """Say how this node's share has ended; how the run has, as far as the others say so in time.

        A rank that complains of another's silence is to blame only where nobody else is, so such a
        node waits for the others' word.
        """
        self._own = own
        self._published.wait(2 * BEAT + 1)
        begin = time.monotonic()
        while own.peer and not self._decided() and time.monotonic() < begin + SILENCE + 2 * BEAT:
            time.sleep(BEAT / 3)
        theirs = self.failures()
        mine = Ending(own.rank, own.code, f"{self._node.title}: {own.reason}", own.peer) if own.code else own
        failed = sorted([*([mine] if own.code else []), *theirs], key=lambda end: end.peer)  # stable: ours first
        return failed[0] if failed else own

    def part(self) -> None:
        """Leave; the first node, with which the store ends, once the others know how the run has ended."""
        self._leaving.set()
        self._left.wait(BEAT + 1)
        until = time.monotonic() + LAST
        while self._node.number == 0 and not self._all_gone() and time.monotonic() < until:
            time.sleep(BEAT / 3)

    def _decided(self) -> bool:
        """Return whether it is known who is at fault, or nothing more will come."""
        return (any(not end.peer for end in self.failures())
                or len(self._ends) == len(self._others) or self._broken)

    def _all_gone(self) -> bool:
        """Return whether each of the others has left, has fallen silent or has never come."""
        now = time.monotonic()
        return all(other in self._gone or other not in self._beats
                   or now - self._beats[other][1] > SILENCE for other in self._others)
