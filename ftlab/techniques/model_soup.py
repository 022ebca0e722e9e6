from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.errors import Incompatible
from ftlab.tasks.losses.base import at_least_float32
from ftlab.techniques.base import Choice, Technique
from ftlab.techniques.restarts import Restarts
from ftlab.techniques.trained_tensors import (
    averaged,
    copies,
    named,
    put,
    renew_statistics,
)
from ftlab.techniques.wrapper import AVERAGES, RESTARTS, TO_THE_END, Wrapper
from ftlab.wording import listed


class ModelSoup(Wrapper):
    """Fit several times from the same start, and finish with the mean of the weights (a wrapper).

    The epochs of the fit are shared out among the members, so that a soup costs what one fit
    costs, and a member has a part of its epochs: raise `max_epochs` to give each more. Each starts
    at the same weights, head included, with a fresh optimizer and a schedule of its own; members
    differ in the order of the data, in dropout and in `rates`, and count as their last step left
    them. Batch norms' statistics are computed anew for a mean. Take it where the optimum is broad:
    a pre-trained backbone, and a head that has been trained before. One member is the technique
    itself. Not around low-rank updates and others that are folded into the weights afterwards: the
    mean of their factors is not the mean of the weights.

    Wortsman, Ilharco, Gadre, Roelofs, Gontijo-Lopes, Morcos, Namkoong, Farhadi, Carmon, Kornblith,
    Schmidt (2022), https://arxiv.org/abs/2203.05482

    Args:
        technique: what adapts the model.
        members: how many fits.
        how: `greedy`, which begins with the best member on validation and takes others in, the
            better first, where the mean is not worse; or `uniform`, the mean of all.
        rates: a factor of the learning rate for each member; null for 1.
    """

    search_space = {"how": Choice(("greedy", "uniform"))}
    of_training = True
    does = frozenset({AVERAGES, RESTARTS, TO_THE_END})
    never_around = frozenset({AVERAGES, RESTARTS, "settle", "evaluated", "merge"})

    def __init__(self, technique: Technique, members: int = 3,
                 how: Literal["greedy", "uniform"] = "greedy",
                 rates: list[float] | None = None) -> None:
        super().__init__(technique)
        if members < 1:
            raise ValueError(f"members must be at least 1, got {members}")
        if how not in ("greedy", "uniform"):
            raise ValueError(f"how is greedy or uniform, got {how!r}")
        if rates is not None and (len(rates) != members or min(rates) <= 0):
            raise ValueError(f"rates must be {members} numbers above 0, one a member, got {rates}")
        self.members, self.how, self.rates = members, how, rates or [1.0] * members
        self.fits = Restarts(technique)
        self.steps_of_all = 0
        self.names: list[str] = []
        self.kept: list[dict[str, Tensor]] = []

    def starts(self, epochs: int) -> list[int]:
        """First epoch of each member, and the end.

        Raises:
            Incompatible: there is not one for each.
        """
        if epochs < self.members:
            raise Incompatible(f"ModelSoup(members={self.members}) wants an epoch for each, and "
                               f"there are {epochs}", "raise max_epochs, or take fewer members")
        return [math.ceil(member * epochs / self.members) for member in range(self.members + 1)]

    def lr_factors(
        self, groups: list[dict[str, Any]], total: int, epochs: int
    ) -> list[Callable[[int], float]]:
        return self.fits.lr_factors(groups, total, self.starts(epochs), self.rates)

    def optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return self.fits.optimizer(groups)

    def begin_fit(self, model: TaskModel, data: DataModule, steps: int) -> None:
        self.technique.begin_fit(model, data, math.ceil(steps / self.members))
        self.names, self.kept = list(averaged(model)), []
        self.steps_of_all = steps
        self.fits.begin(model, self.names if self.members > 1 else ())

    def begin_epoch(self, model: TaskModel, epoch: int, epochs: int) -> None:
        starts = self.starts(epochs)
        if not epoch and epochs % self.members:
            own = listed([str(end - begin) for begin, end in pairwise(starts)])
            self.notes.append(f"ModelSoup: its members have {own} epochs; max_epochs: "
                              f"{epochs + self.members - epochs % self.members} gives each as many")
        member = max(m for m in range(self.members) if starts[m] <= epoch)
        if member and epoch == starts[member]:
            self._keep(model)
            self.fits.restart(model)
            self.restarts.append(epoch)
        self.technique.begin_epoch(model, epoch - starts[member],
                                   starts[member + 1] - starts[member])

    def after_step(self, model: TaskModel, step: int) -> None:
        self.fits.after_step(model, step)
        if step == self.steps_of_all and self.members > 1:
            self._keep(model)

    def _keep(self, model: TaskModel) -> None:
        """Remember a member as it would be measured."""
        getattr(self.fits.made, "eval", lambda: None)()  # what some optimizers average
        self.kept.append(copies(named(model, self.names)))
        getattr(self.fits.made, "train", lambda: None)()

    def settle(self, model: TaskModel, data: DataModule, score: Callable[[], float]) -> None:
        if self.members == 1:
            return  # the best epoch is restored
        chosen = list(range(self.members))
        if self.how == "greedy":
            chosen = self._greedy(model, data, score)
            taken = listed([str(member + 1) for member in sorted(chosen)])
            self.notes.append(f"ModelSoup: of {self.members} members the mean of {taken}")
        self._be(model, data, chosen)

    def _greedy(self, model: TaskModel, data: DataModule, score: Callable[[], float]) -> list[int]:
        def scored(chosen: list[int]) -> float:
            self._be(model, data, chosen)
            return score()

        alone = [scored([member]) for member in range(self.members)]
        best, *others = sorted(range(self.members), key=lambda member: -alone[member])
        chosen, highest = [best], alone[best]
        for member in others:
            found = scored([*chosen, member])
            if found >= highest:
                chosen, highest = [*chosen, member], found
        return chosen

    def _be(self, model: TaskModel, data: DataModule, chosen: list[int]) -> None:
        """Let the model be the mean of some members; one is itself, its statistics too."""
        first, *more = (self.kept[member] for member in chosen)
        if not more:
            put(model, first)
            return
        put(model, {name: torch.stack([at_least_float32(member[name]) for member in
                                       (first, *more)]).mean(dim=0) for name in self.names})
        renew_statistics(model, data)
