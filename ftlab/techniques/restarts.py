"""Several fits in the epochs of one, for wrappers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ftlab.backbones.task_model import TaskModel
from ftlab.techniques.base import Technique
from ftlab.techniques.trained_tensors import copies, named, put


class Restarts:
    """Fits one after another, each with a fresh optimizer and schedule, from the same weights or the last one's.

    Args:
        technique: what adapts the model, whose methods are called as if each fit were the only one.
    """

    def __init__(self, technique: Technique) -> None:
        self.technique = technique
        self.made: torch.optim.Optimizer | None = None
        self.settings: list[dict[str, Any]] = []
        self.start: dict[str, Tensor] = {}
        self.first = self.step = 0  # updates: before this fit, so far

    def lr_factors(self, groups: list[dict[str, Any]], total: int, starts: Sequence[int],
                   rates: Sequence[float]) -> list[Callable[[int], float]]:
        """Join the fits' schedules.

        Args:
            groups: of the optimizer.
            total: updates of all fits.
            starts: first epoch of each fit, and the end.
            rates: a factor for each fit.
        """
        steps = [total * start // starts[-1] for start in starts]
        own = [self.technique.lr_factors(groups, steps[n + 1] - steps[n], starts[n + 1] - starts[n])
               for n in range(len(rates))]

        def factor(group: int, step: int) -> float:
            fit = max(n for n in range(len(rates)) if steps[n] <= step)
            return rates[fit] * own[fit][group](step - steps[fit])

        return [partial(factor, group) for group in range(len(groups))]

    def optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Make the optimizer of all fits."""
        self.made = self.technique.optimizer(groups)
        self.settings = [{name: value for name, value in group.items()
                          if name not in ("params", "lr")} for group in self.made.param_groups]
        return self.made

    def begin(self, model: TaskModel, names: Iterable[str]) -> None:
        """Keep the weights that each fit starts from.

        Args:
            model: before the first update.
            names: of the parameters and buffers that a fit changes.
        """
        self.first = self.step = 0
        self.start = copies(named(model, names))

    def after_step(self, model: TaskModel, step: int) -> None:
        """Follow an update, the `step`-th of all fits."""
        self.technique.after_step(model, step - self.first)
        self.step = step

    def restart(self, model: TaskModel, free: bool = True) -> None:
        """Go back to the start, for the next fit.

        Args:
            model: of the run.
            free: whether all that may train is free to again, as before the first epoch.
        """
        put(model, self.start)
        self.renew(model, free)

    def renew(self, model: TaskModel, free: bool = True) -> None:
        """Begin the next fit with the weights as they are.

        Args:
            model: of the run.
            free: as of `restart`.
        """
        assert self.made is not None
        for name, parameter in model.named_parameters():
            if free and name in self.start:
                parameter.requires_grad_(True)
        self.made.state.clear()
        for group, settings in zip(self.made.param_groups, self.settings, strict=True):
            group.update({**settings, "initial_lr": group.get("initial_lr", group["lr"])})
        self.first = self.step
