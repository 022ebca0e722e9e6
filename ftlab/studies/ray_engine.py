"""The engine of a Ray cluster: each run goes to a node that has the CPUs and GPUs for it.

A run needs to be spoken to while it goes on (what is new? end early), so a Ray actor keeps its
place on the node (of a run of several nodes one on each, `ray_place.py`), and the run itself is a process below it, as on the coordinator's own machine.
The actor serves run after run: the heavy imports are paid once a place, not once a run.
"""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from ftlab.studies.engine import OUTPUT, SPECIFICATION, Engine, Event, Requirements
from ftlab.studies.ray_cluster import connect, nodes, portion, room
from ftlab.studies.ray_place import TO_CLOSE, Place
from ftlab.studies.ray_runner import PIECE
from ftlab.training import state_files

LOOK = 5.0  # seconds from one look at the cluster's nodes to the next
IDLE = 30.0  # seconds until a place that no run wants goes back to the cluster
PLACES = 5  # that are lost before a run has begun, until the run counts as lost


@dataclass
class _Going:
    """A run on its way.

    Attributes:
        place: its actors.
        places: tried so far, this one included.
        last_sign: when it last answered; 0 before it has begun the run.
        node: where.
        node_lost: whether it has ended because one of its nodes is gone, no rank being at fault.
    """

    place: Place
    places: int = 1
    last_sign: float = 0.0
    node: str = "a node that was to start it"
    node_lost: bool = False


class RayEngine(Engine):
    """Runs on the nodes of a Ray cluster.

    ftlab, the data and the backbones must be on every node: what travels is the specification, the
    events, and the files that a run wrote.

    Args:
        address: `host:port` of the cluster's head, from a machine that belongs to the cluster;
            `auto` for the cluster that this machine belongs to (or RAY_ADDRESS); `local` for a
            cluster of this machine alone, which lives as long as the engine.

    Raises:
        InputError: there is no such cluster.
    """

    def __init__(self, address: str = "auto") -> None:
        self._ours = not ray.is_initialized()  # in a notebook its user may be connected already
        if self._ours:
            connect(address)
        self._running: dict[Path, _Going] = {}
        self._awaited: dict[Any, Path] = {}
        self._idle: list[tuple[Place, float]] = []
        self._workers: int | None = None
        self._timeout: float | None = None
        self._need = Requirements()
        self._cpus, self._gpus = 1, 0
        self._room, self._looked = 1, 0.0

    def prepare(self, need: Requirements, workers: int | None, timeout: float | None) -> None:
        assert not self._running
        self._need, self._workers, self._timeout = need, workers, timeout
        self._cpus, self._gpus = portion(nodes(), need, workers)

    @property
    def slots(self) -> int:  # type: ignore[override]  # an attribute to those who read it
        """As said, or as many as the nodes of this moment have room for.

        Never 0: a run that waits for its place is what makes an autoscaler add a node.
        """
        if self._workers is not None:
            return self._workers
        if time.monotonic() - self._looked > LOOK:
            self._looked = time.monotonic()
            self._room = room(nodes(), self._cpus, self._gpus, self._need.nodes)
        return max(1, self._room)

    def start(self, directory: Path) -> None:
        self._place(directory, 1)

    def _place(self, directory: Path, places: int) -> None:
        specification = (directory / SPECIFICATION).read_text(encoding="utf-8")
        place = self._free_place()
        self._running[directory] = _Going(place, places)
        for name, piece in state_files.pieces(directory, PIECE):  # of a run that goes on
            ray.get(place.runner.take.remote(directory.name, name, piece))
        self._awaited[place.begin(directory.name, specification)] = directory

    def _free_place(self) -> Place:
        while self._idle:
            place, _ = self._idle.pop()
            if place.whole:
                return place
            place.kill()
        return Place(self._cpus, self._gpus, self._need.nodes, self._timeout)

    def events(self, patience: float) -> list[tuple[Path, Event]]:
        self._let_go()
        awaited = list(self._awaited)
        if not awaited:
            return []
        ready, _ = ray.wait(awaited, num_returns=len(awaited), timeout=patience)
        news = []
        for answer in ready:
            directory = self._awaited.pop(answer)
            news += [(directory, event) for event in self._answer(directory, answer)]
        return news + self._end_silent()

    def _answer(self, directory: Path, answer: Any) -> list[Event]:
        """The events of an answer; asks for more unless the run has ended."""
        going = self._running[directory]
        try:
            events: list[Event] = ray.get(answer)
        except RayError as error:
            return self._broken(directory, error)
        going.last_sign = time.monotonic()
        news = []
        for event in events:
            if event["event"] == "file":
                path = directory / event["name"]
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("ab") as file:
                    file.write(event["data"])
                continue
            if event["event"] == "states":
                state_files.take_manifest(directory / event["name"], event["data"])
                continue
            if event["event"] == "node":
                going.node = event["name"]
                continue
            if event["event"] == "failed":  # no rank's fault, but of a node that has gone
                going.node_lost = event.get("rank") == -1
            news.append(event)
        if news and news[-1]["event"] == "exit":
            del self._running[directory]
            if going.node_lost:
                going.place.kill()
                news[-1] |= {"lost": True, "machine_lost": True}
            else:
                self._idle.append((going.place, time.monotonic()))
        else:
            self._awaited[going.place.runner.more.remote()] = directory
        return news

    def _broken(self, directory: Path, error: RayError) -> list[Event]:
        """The end of a run whose actor answers no more, or with an exception of its own."""
        going = self._running[directory]
        if isinstance(error, RayTaskError) or getattr(error, "actor_init_failed", False):
            last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            reason = f"on the Ray cluster: {last}"
            return [self._gone(directory, str(error), code=1, lost=False, reason=reason[:500])]
        if not going.last_sign and going.places < PLACES:
            # Ray takes a while to see that a node is dead, and gives its places away until then.
            going.place.kill()
            self._place(directory, going.places + 1)
            return []
        return [self._lost(directory, str(error))]

    def _lost(self, directory: Path, why: str) -> Event:
        reason = f"lost with its worker on {self._running[directory].node}"
        return self._gone(directory, why, code=-signal.SIGKILL, lost=True, machine_lost=True,
                          reason=reason)

    def _gone(self, directory: Path, why: str, **how: Any) -> Event:
        """Drop a run and its place."""
        self._running.pop(directory).place.kill()
        (directory / OUTPUT).write_text(f"{why}\n", encoding="utf-8")
        return {"event": "exit", **how}

    def _end_silent(self) -> list[tuple[Path, Event]]:
        """Actors that hang; a run that hangs is ended by its actor."""
        news = []
        for answer, directory in list(self._awaited.items()):
            going = self._running[directory]
            silent = time.monotonic() - going.last_sign
            if self._timeout is not None and going.last_sign and silent > self._timeout:
                del self._awaited[answer]
                news.append((directory, self._lost(directory, f"no answer for {silent:.0f} s")))
        return news

    def _let_go(self) -> None:
        """Give places back that no run has wanted for a while, or that another waits for."""
        wanted = any(not going.last_sign for going in self._running.values())
        for place, since in list(self._idle):
            if wanted or time.monotonic() - since > IDLE:
                self._idle.remove((place, since))
                place.leave()

    def prune(self, directory: Path) -> None:
        run = directory if directory in self._running else directory.parent  # of a pack's member
        member = directory.name if run != directory else ""
        self._running[run].place.runner.prune.remote(member)

    def close(self) -> None:
        if not ray.is_initialized():  # closed already
            return
        places = [going.place for going in self._running.values()]
        places += [place for place, _ in self._idle]
        if ends := [end for place in places for end in place.close()]:  # gently: nothing is left on the nodes
            ray.wait(ends, num_returns=len(ends), timeout=TO_CLOSE)
        for place in places:
            place.kill()
        self._running.clear()
        self._awaited.clear()
        self._idle.clear()
        if self._ours:
            ray.shutdown()
