"""The contract of shortcuts: ways of computing a run's result faster, each with the same result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from lightning import Trainer

from ftlab.data.examples import SplitName
from ftlab.training.callbacks import BestEpoch
from ftlab.training.costs import MemoryMeter
from ftlab.training.event_log import Report
from ftlab.training.guards import TensorGuard
from ftlab.training.run import Run

Step = Literal["inputs", "loop", "device", "blocks"]
"""The part of a fit that a shortcut replaces: the inputs of what trains, the Trainer's loop, the
place of the data, the blocks' arithmetic. Shortcuts are asked in this order."""
STEPS: tuple[Step, ...] = get_args(Step)

Result = dict[str, float] | Exception
"""The metrics of a run, or the exception that it failed with."""
Stops = Sequence[Callable[[], bool]] | None
"""One function per trial: whether it is to end, asked after each validation. None: whole runs."""


class NotApplicable(Exception):
    """A shortcut is not taken; says why. What it stands for is computed as without it.

    Without a text the reason is of no interest to a user.
    """


@dataclass(frozen=True)
class Fitting:
    """A run whose model is adapted and whose training comes next.

    Attributes:
        run: its data are connected.
        guard: of its model.
        trainer: made, not begun.
        memory: measures the fit.
        best: judges its epochs.
        splits: that the run will read.
        report: takes its events.
    """

    run: Run
    guard: TensorGuard
    trainer: Trainer
    memory: MemoryMeter
    best: BestEpoch
    splits: Sequence[SplitName]
    report: Report

    @property
    def device(self) -> torch.device:
        """Where the run trains."""
        return self.trainer.strategy.root_device


@dataclass(frozen=True)
class ShortcutPlan:
    """A shortcut as one run takes it.

    Attributes:
        text: what was decided, for the run's record.
        bytes: set aside on the device, which are not the technique's need.
        training: makes the context in which the Trainer trains.
        train: trains in the Trainer's stead, given the seconds that preparation took; returns
            the costs of `costs.OF_TRAINING`.
    """

    text: str
    bytes: int = 0
    training: Callable[[], AbstractContextManager[Any]] = nullcontext
    train: Callable[[float], dict[str, float]] | None = None


class Shortcut(ABC):
    """A way of computing a run's result faster; one file or folder each, found by walking the room."""

    step: ClassVar[Step]
    event: ClassVar[str] = "shortcut"
    """The name of the event that says whether it was taken."""
    refusal: ClassVar[str] = ""
    """Put before the reason why it is not taken."""
    together: ClassVar[str | None] = None
    """It trains several runs as one whose technique's class has the same `together`."""

    @abstractmethod
    def applies(self, fitting: Fitting) -> ShortcutPlan:
        """Prepare the shortcut for a run.

        Raises:
            NotApplicable: the run computes the same without it.
        """

    def fit_together(self, runs: Sequence[Run], reports: Sequence[Report],
                     stops: Stops) -> list[Result]:
        """Execute several runs, or trials, as one; see `shared_fit.execute_together`.

        Raises:
            NotApplicable: they are to be executed one by one. Nothing has trained.
        """
        raise NotApplicable(f"{type(self).__name__} trains runs one at a time")
