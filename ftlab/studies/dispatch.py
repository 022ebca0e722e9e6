"""Keeps an engine busy: takes jobs as slots come free, hands each its events, and stops in order."""

from __future__ import annotations

import signal
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path
from types import FrameType
from typing import Any

from ftlab.studies.engine import Engine, Event

PATIENCE = 0.1  # seconds that nothing may happen before the display and the signals get a look


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM arrived; the store is in order and the same command continues."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def name(self) -> str:
        """SIGINT or SIGTERM."""
        return signal.Signals(self.number).name


class Job(ABC):
    """One run on its way through an engine.

    Attributes:
        directory: holds the specification; absolute.
    """

    directory: Path

    @abstractmethod
    def event(self, event: Event) -> None:
        """Take an event that is not the end."""

    @abstractmethod
    def end(self, event: Event) -> None:
        """Take the event `exit`."""

    @abstractmethod
    def interrupted(self, by: Interrupted) -> None:
        """The run was stopped because we are."""


class Jobs(ABC):
    """Where jobs come from."""

    @abstractmethod
    def next(self) -> Job | None:
        """Another job, or None where there is none at present."""

    @abstractmethod
    def over(self) -> bool:
        """Whether no job will ever come again, once those that go on have ended."""

    @abstractmethod
    def tick(self) -> None:
        """Called a few times a second."""


def dispatch(engine: Engine, jobs: Jobs, signals: Signals) -> None:
    """Run all jobs, as many at a time as the engine has slots.

    Raises:
        Interrupted: by Ctrl-C or SIGTERM; the engine is closed, and every job that went on knows.
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
                    going.pop(directory).end(event)
                else:
                    going[directory].event(event)
                signals.check()
            jobs.tick()
    except Interrupted as interrupted:
        engine.close()
        for job in going.values():
            job.interrupted(interrupted)
        raise


def _wait(engine: Engine, busy: bool) -> list[tuple[Path, Event]]:
    if busy:
        return engine.events(PATIENCE)
    time.sleep(PATIENCE)  # for jobs that others hold
    return []


class Signals:
    """Ctrl-C and SIGTERM as `Interrupted`.

    While nothing is written they interrupt at once; with `deferred` only where `check` is
    called, so that no write to the store is cut in two. The second one does not wait.
    """

    def __init__(self) -> None:
        self.deferred = False
        self._arrived: int | None = None
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():  # Python allows no other
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.deferred or self._arrived is not None:
            raise Interrupted(number)
        self._arrived = number

    def check(self) -> None:
        """Raise `Interrupted` where a signal has arrived."""
        if self._arrived is not None:
            raise Interrupted(self._arrived)

    def restore(self) -> None:
        """Put the handlers of before back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
