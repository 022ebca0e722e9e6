"""The queue of a study's runs, which several commands may do beside each other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ftlab.studies.study import Cell

T = TypeVar("T")


def run_name(cell: Cell, seed: int) -> str:
    """The name of a run in the queue: the same in every command of the study."""
    return f"{cell.key.digest} seed {seed}"


def is_of(run: str, cell: Cell) -> bool:
    """Return whether a run, by its name, is one of a cell's."""
    return run.startswith(f"{cell.key.digest} ")


@dataclass(frozen=True)
class Claim:
    """A run that this command holds.

    Attributes:
        run: its name.
        token: grows with every change of hands, so that a holder who was taken for dead is refused.
        shared: another command may have done it since the tracking store was read.
    """

    run: str
    token: int
    shared: bool


@dataclass(frozen=True)
class Holder:
    """Another command that holds runs.

    Attributes:
        title: `process 4711 on HOST`.
        here: it works on this machine.
        lives: it is known to live; else it is watched.
    """

    title: str
    here: bool
    lives: bool


class Queue(ABC):
    """A study's runs, each held by one command at a time.

    The tracking store says what is done; the queue says who works at what.
    """

    @abstractmethod
    def exclusively(self, act: Callable[[], T]) -> T:
        """`act()` while no other command acts; again, whole, after an outage of the queue."""

    @abstractmethod
    def look(self, runs: Iterable[str]) -> None:
        """Remember how runs stand; call it before the tracking store is read."""

    @abstractmethod
    def claim(self, runs: Sequence[str], choose: Callable[[list[str]], list[str]]) -> list[Claim]:
        """Hold runs that nobody works at.

        Args:
            runs: that are wanted, in order.
            choose: of those that are free, in order and at least one, which to hold.
        """

    @abstractmethod
    def ours(self, claim: Claim) -> bool:
        """Return whether nobody has taken a run over from us."""

    @abstractmethod
    def release(self, claim: Claim, done: bool = False) -> None:
        """Give a run back; `done`, where the tracking store says how it ended."""

    @abstractmethod
    def held(self) -> dict[str, Holder]:
        """The runs that other commands hold."""

    @abstractmethod
    def beat(self) -> None:
        """Look which other commands live; called a few times a second."""

    @abstractmethod
    def hurry(self) -> None:
        """From now on wait for the queue a few seconds at most, once: we stop."""

    @abstractmethod
    def close(self) -> None:
        """Give everything back."""
