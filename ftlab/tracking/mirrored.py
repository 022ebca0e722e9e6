"""A command's runs in other trackers, each tracker in a thread of its own, so that none delays a run."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import Full, Queue

from ftlab.redaction import redact
from ftlab.tracking.mirrors.base import Mirror, MirroredRun, Status

LARGEST = 100_000  # writes that wait; a tracker that far behind does not answer
PATIENCE = 10.0  # seconds that the end of a command waits for all of them


class Mirrors:
    """The mirrors of a command.

    Args:
        kinds: which.
        folder: the results' folder; a tracker without a place of its own has `.NAME` in it.
    """

    def __init__(self, kinds: Sequence[type[Mirror]] = (), folder: Path = Path("results")) -> None:
        self._lanes = [_Lane(kind, folder / f".{kind.library}") for kind in kinds]

    def begin(self, run: MirroredRun) -> Mirrored:
        """Show a run, from its beginning."""
        mirrored = Mirrored(run, self._lanes)
        for lane in self._lanes:
            lane.put(mirrored, lambda mirror: mirror.begin(run))
        return mirrored

    def close(self, say: Callable[[str], None]) -> None:
        """Wait some seconds for what is under way, and say of failures what nobody has said yet."""
        deadline = time.monotonic() + PATIENCE
        for lane in self._lanes:
            lane.close()
        for lane in self._lanes:
            for note in lane.left(deadline):
                say(note)


class Mirrored:
    """A run in every mirror of the command.

    Attributes:
        notes: of mirrors that have failed, to be taken from the front.
    """

    def __init__(self, run: MirroredRun, lanes: Sequence[_Lane]) -> None:
        self.run, self._lanes = run, lanes
        self.notes: deque[str] = deque()
        self._logged: dict[str, int] = {}

    def metrics(self, values: Mapping[str, float], step: int, milliseconds: int) -> None:
        """Add points to curves, each of a step once: a run that goes on repeats some."""
        new = {name: value for name, value in values.items() if step > self._logged.get(name, -1)}
        self._logged |= dict.fromkeys(new, step)
        if new:
            self._put(lambda mirror: mirror.metrics(new, step, milliseconds))

    def end(self, status: Status, final: Mapping[str, float]) -> None:
        """End the run, with what was measured once."""
        once = {name: value for name, value in final.items() if name not in self._logged}
        self._put(lambda mirror: mirror.end(status, once), last=True)

    def _put(self, act: Callable[[Mirror], None], last: bool = False) -> None:
        for lane in self._lanes:
            lane.put(self, act, last)


class _Lane:
    """One tracker's writes, in their order."""

    def __init__(self, kind: type[Mirror], folder: Path) -> None:
        self._kind, self._folder = kind, folder
        self._waiting: Queue[tuple[Mirrored, Callable[[Mirror], None], bool] | None] = Queue(LARGEST)
        self._open: dict[Mirrored, Mirror] = {}
        self._failed: set[Mirrored] = set()
        self._late: deque[Mirrored] = deque()  # with notes that nobody may have taken
        # a daemon: where a tracker hangs the command ends all the same
        self._thread = threading.Thread(target=self._work, name=kind.library, daemon=True)
        self._thread.start()

    def put(self, run: Mirrored, act: Callable[[Mirror], None], last: bool = False) -> None:
        """Let a mirror do something; nothing here waits."""
        if run in self._failed:
            return
        try:
            self._waiting.put_nowait((run, act, last))
        except Full:
            self._fail(run, f"it is {LARGEST} writes behind")

    def close(self) -> None:
        """Take nothing more."""
        with contextlib.suppress(Full):  # it hangs
            self._waiting.put_nowait(None)

    def left(self, deadline: float) -> list[str]:
        """Notes that nobody has taken, once all is written or it is late."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        notes = [f"{run.run.title}: {run.notes.popleft()}" for run in list(self._late) if run.notes]
        if self._thread.is_alive():
            notes.append(f"{self._kind.library} does not answer: some of what it mirrors is missing there")
        return notes

    def _work(self) -> None:
        while (task := self._waiting.get()) is not None:
            run, act, last = task
            if run in self._failed:
                continue
            try:
                if run not in self._open:
                    self._open[run] = self._kind(self._folder)
                act(self._open[run])
            except Exception as error:  # noqa: BLE001  whatever it is, the run goes on
                self._fail(run, redact((str(error).strip() or repr(error)).splitlines()[0]))
            if last or run in self._failed:
                self._open.pop(run, None)

    def _fail(self, run: Mirrored, reason: str) -> None:
        self._failed.add(run)
        run.notes.append(f"{self._kind.library} mirrors no more of this run: {reason}")
        self._late.append(run)
