"""The runs of a stack of heads, and the state that those of one seed share."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.techniques.head_optimum import HeadOptimum
from ftlab.training.callbacks import BestEpoch
from ftlab.training.event_log import Report
from ftlab.training.guards import TensorGuard
from ftlab.training.run import Run
from ftlab.training.shortcuts.base import Fitting
from ftlab.training.shortcuts.linear_heads.cached_head import CachedHead
from ftlab.training.solve import settle


@dataclass(eq=False)
class SeedGroup:
    """The state that runs of one seed share.

    Attributes:
        data: gives the order of their batches.
        guard: of their model, as it was before training.
        start: the head's parameters before training.
        random: the state of torch's generator before training.
    """

    data: DataModule
    guard: TensorGuard
    start: list[Tensor]
    random: Tensor


@dataclass(eq=False)
class StackedRun:
    """One run of a stack.

    Attributes:
        run: its technique has rate, weight decay and schedule.
        seed: the state that it shares with the runs of its seed.
        best: judges its epochs.
        report: takes its events.
        final, kept: the head's parameters after training, and after the best epoch.
        error: why it failed, where it did.
        over: whether it takes part no longer.
        optimum: of the head, where that is computed in place of training.
    """

    run: Run
    seed: SeedGroup
    best: BestEpoch
    report: Report
    final: list[Tensor] = field(default_factory=list)
    kept: list[Tensor] = field(default_factory=list)
    error: Exception | None = None
    over: bool = False
    optimum: HeadOptimum | None = None

    def settle(self, head: CachedHead, model: TaskModel, everything: bool = True) -> None:
        """Hold the run to what the guards ask, and leave the model as its best epoch made it.

        Args:
            head: of the model.
            model: that the runs share.
            everything: whether the frozen weights are checked too, which no run of the stack
                can change without the others.

        Raises:
            GuardFailed: the result would be wrong; or another reason why the run failed.
        """
        if self.error is not None:
            raise self.error
        names, guard, trained = set(head.names), self.seed.guard, self.run.technique.trained
        trained |= names
        guard.reached |= names
        head.put(self.final)
        for note in guard.check(model, trained, None if everything else names):
            self.report({"event": "note", "text": note})
        head.put(self.kept)
        if self.best.directory is not None:
            self.best.write(model, guard.moved(model, names))

    def settle_optimum(self, fitting: Fitting, among: set[str] | None) -> None:
        """The same of a head that was not trained but solved.

        Args:
            fitting: of the run that prepared the shared model.
            among: names of tensors to look at, None for all.

        Raises:
            GuardFailed: the result would be wrong; or another reason why the run failed.
        """
        if self.error is not None:
            raise self.error
        assert self.optimum is not None
        own = replace(fitting, run=self.run, guard=self.seed.guard, best=self.best,
                      report=self.report)
        settle(own, self.optimum, among)


def random_state(device: torch.device) -> Tensor:
    """The state of the generator that dropout draws from."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def put_random(device: torch.device, state: Tensor) -> None:
    """Set the state of the generator that dropout draws from."""
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
