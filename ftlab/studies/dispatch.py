"""Keeps an engine busy: takes jobs as slots come free, gives each its events, stops in order."""

from __future__ import annotations

import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from ftlab.errors import FtlabError
from ftlab.studies.engine import Engine, Event, Requirements
from ftlab.studies.local_engine import LocalEngine

LATEST = 10.0  # seconds that a signal waits for a write; whoever sends SIGTERM often kills after 30
PATIENCE = 0.1  # seconds that nothing may happen before the display and the signals get a look


class Interrupted(BaseException):
    """Ctrl-C, SIGTERM or Slurm's SIGUSR1 arrived; the store is in order and the same command continues."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def name(self) -> str:
        """SIGINT, SIGTERM or SIGUSR1."""
        return signal.Signals(self.number).name


@dataclass(frozen=True)
class JobOutcome:
    """The outcome of a run.

    Attributes:
        kind: `done`; `failed`; `again`, where it vanished through no fault of its own that is
            known, so that another attempt makes sense; `alone`, where the process that it shared
            gave no result of it, and a process of its own shall.
        reason: why it is not done.
    """

    kind: Literal["done", "failed", "again", "alone"]
    reason: str = ""


class Job(ABC):
    """A process on its way through an engine: one run, or several that share it.

    Attributes:
        directory: holds the specification; absolute.
    """

    directory: Path

    @abstractmethod
    def event(self, event: Event) -> None:
        """Take an event that is not the end."""

    @abstractmethod
    def end(self, event: Event) -> Iterator[tuple[Job, JobOutcome]]:
        """Take the event `exit`; gives the outcome of each run, one at a time."""

    @abstractmethod
    def interrupted(self, why: str) -> None:
        """Record that the run was stopped because we are: by a signal, or an error of our own."""


class Jobs(ABC):
    """The source of jobs, which alone decides what becomes of one that has ended."""

    @abstractmethod
    def next(self) -> Job | None:
        """Another job, or None where there is none at present."""

    @abstractmethod
    def ended(self, run: Job, outcome: JobOutcome) -> None:
        """Take the outcome of a run."""

    @abstractmethod
    def over(self) -> bool:
        """Return whether no job will ever come again, once those that go on have ended."""

    @abstractmethod
    def tick(self) -> None:
        """Called a few times a second."""

    def interrupted(self, why: str) -> None:  # noqa: B027  # most have nothing to do
        """Stop early, and give back what is held; each job's `interrupted` comes afterwards."""


def dispatch(engine: Engine, jobs: Jobs, signals: Signals) -> None:
    """Run all jobs, as many at a time as the engine has slots.

    Raises:
        Interrupted: by Ctrl-C or SIGTERM. Whatever is raised, the engine is closed, and
            `Job.interrupted` was called of every job that went on.
    """
    going: dict[Path, Job] = {}
    try:
        while True:
            signals.check()
            while len(going) < engine.slots and (job := jobs.next()):
                going[job.directory] = job
                engine.start(job.directory)
                signals.check()
            if not going and jobs.over():
                return
            for directory, event in _wait(engine, bool(going)):
                if event["event"] == "exit":
                    for run, outcome in going.pop(directory).end(event):
                        jobs.ended(run, outcome)
                else:
                    going[directory].event(event)
                signals.check()
            jobs.tick()
    except BaseException as error:
        try:
            engine.close()
        finally:  # a second Ctrl-C waits for no process, but the store shall be true
            try:
                for job in going.values():  # recorded first: whoever takes a run over says so later
                    job.interrupted(cause(error))
            finally:
                jobs.interrupted(cause(error))
        raise


def cause(error: BaseException) -> str:
    """The reason why we stop, for the runs' records."""
    if isinstance(error, Interrupted):
        return f"interrupted by {error.name}"
    return f"the coordinator failed: {type(error).__name__}: {error}".splitlines()[0]


@contextmanager
def engaged(engine: Engine | None, need: Requirements, workers: int | None,
            timeout: float | None) -> Iterator[tuple[Engine, Signals]]:
    """An engine with room for runs, and the signals that end them; closed and put back at the end.

    Args:
        engine: None for this machine.
        need: of the largest run.
        workers: runs at a time; None for as many as there is room for.
        timeout: seconds without a sign of life after which a run is ended.
    """
    engine = engine or LocalEngine()  # imports while we read the data
    signals = Signals()
    try:
        engine.prepare(need, workers, timeout)
        yield engine, signals
    finally:
        signals.restore()
        engine.close()


@contextmanager
def closing(close: Callable[[], None], say: Callable[[str], None]) -> Iterator[None]:
    """`close()` at the end, whatever has happened.

    Args:
        close: leaves store and terminal in order.
        say: shows what `close` could not do, where something else is raised already.
    """
    try:
        yield
    except BaseException:
        try:
            close()
        except FtlabError as error:
            say(error.what)
        raise
    close()


def _wait(engine: Engine, busy: bool) -> list[tuple[Path, Event]]:
    if busy:
        return engine.events(PATIENCE)
    time.sleep(PATIENCE)  # for jobs that others hold
    return []


class Signals:
    """Ctrl-C, SIGTERM and SIGUSR1 as `Interrupted`.

    While nothing is written they interrupt at once; with `deferred` only where `check` is
    called, so that no write to the store is cut in two. A write that takes longer than `LATEST`
    seconds, as in an outage, is not waited for, and the second signal waits for nothing.
    """

    def __init__(self) -> None:
        self.deferred = False
        self._arrived: int | None = None
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():  # Python allows no other
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
                self._before[number] = signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again, self._arrived = self._arrived is not None, number
        # remembered in any case: what is raised inside a destructor gets lost
        if again or not self.deferred:
            raise Interrupted(number)
        self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._late)
        signal.setitimer(signal.ITIMER_REAL, LATEST)

    def _late(self, number: int, frame: FrameType | None) -> None:
        self.check()

    def check(self) -> None:
        """Raise `Interrupted` where a signal has arrived."""
        if self._arrived is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise Interrupted(self._arrived)

    def restore(self) -> None:
        """Put the handlers of before back."""
        if signal.SIGALRM in self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)
