from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ftlab.backbones.task_model import Batch, TaskModel
from ftlab.data.base import DataModule
from ftlab.data.clients import CLIENT, Clients, Turn
from ftlab.errors import Incompatible, InputError
from ftlab.tasks.base import Task
from ftlab.techniques.base import Choice, Technique
from ftlab.techniques.factor_gap import FactorGap
from ftlab.techniques.restarts import Restarts
from ftlab.techniques.trained_tensors import averaged, copies, named, parameters, put
from ftlab.techniques.wrapper import AVERAGES, READS_STREAM, RESTARTS, Wrapper


class Federated(Wrapper):
    """Train where the data are: clients train in turn, and their weights are averaged (a wrapper).

    An epoch is a round: each client of it starts from the common weights with a fresh optimizer and
    trains on its own examples alone; the new common weights are the mean of the clients', each
    counted by its examples, statistics of batch norms among them. All clients of a round have its
    rates. What travels is what trains, the head included. It is simulated, one client after another
    on one device, so that it says what a federation costs in score and bytes and nothing of its
    time. Scores of each client's examples:
    `columns: {client: C, group: C}`. With `proximal` it is FedProx. The mean of low-rank factors is
    not the factors of the mean update: the record says how far they lie apart, and FFALoRA has no
    such gap.

    McMahan, Moore, Ramage, Hampson, Aguera y Arcas (2017), https://arxiv.org/abs/1602.05629;
    FedProx: Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith (2020), https://arxiv.org/abs/1812.06127

    Args:
        technique: what adapts the model.
        clients: how many share the examples out by class, see `alpha`; null for the values of the
            data set's column `client`.
        alpha: of the Dirichlet distribution of each class's shares: 0.1 for clients that hardly
            resemble each other, 100 for alike.
        fraction: of the clients that train in a round.
        local_epochs: of each client in a round; augmented inputs are the same in all of them.
        proximal: pull of a client's weights towards the common ones, FedProx's mu; 0 for none.
    """

    search_space = {"local_epochs": Choice((1, 2, 5)), "proximal": Choice((0.0, 0.001, 0.01, 0.1, 1.0))}
    of_training = True
    single_batches = True
    does = frozenset({AVERAGES, RESTARTS})
    never_around = frozenset({AVERAGES, RESTARTS, READS_STREAM, "after_step", "evaluated"})
    never_within = frozenset({READS_STREAM})  # no client holds a stream

    def __init__(self, technique: Technique, clients: int | None = None, alpha: float = 0.5,
                 fraction: float = 1.0, local_epochs: int = 1, proximal: float = 0.0) -> None:
        super().__init__(technique)
        for name, value in (("clients", clients), ("local_epochs", local_epochs)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if alpha <= 0:
            raise ValueError(f"alpha must be above 0, got {alpha}")
        if not 0 < fraction <= 1:
            raise ValueError(f"fraction must be above 0 and at most 1, got {fraction}")
        if proximal < 0:
            raise ValueError(f"proximal must be 0 or more, got {proximal}")
        self.proximal = proximal
        self.plan = Clients(clients, alpha, fraction, local_epochs)
        self.sampling = self.plan
        if clients is None:
            self.columns = self.columns | {CLIENT}
        self.fits = Restarts(technique)
        self.data: DataModule | None = None
        self.holders: list[int] = []  # client of each training example
        self.names: list[str] = []
        self.turns: list[Turn] = []  # of this round, that are still to come or under way
        self.done = 0  # of the client under way
        self.sums: dict[str, Tensor] = {}
        self.counted = self.rounds = self.sent = 0
        self.gap: FactorGap | None = None

    def prepare(self, data: DataModule) -> None:
        self.technique.prepare(data)
        train = data.splits["train"]
        try:
            classes = [data.task.stratum(label) for label in train.labels]
            self.holders = list(self.plan.strata(classes, train.columns))
        except InputError as error:
            raise Incompatible(f"Federated: {error.what}", error.mend) from error
        self.size = data.batch_size

    def lr_factors(
        self, groups: list[dict[str, Any]], total: int, epochs: int
    ) -> list[Callable[[int], float]]:
        own, each = self.technique.lr_factors(groups, total, epochs), max(1, total // epochs)

        def factor(group: int, step: int) -> float:
            number, within = divmod(step, each)
            return own[group](round((number + self._progress(number, within, each)) * each))

        return [partial(factor, group) for group in range(len(groups))]

    def _progress(self, number: int, within: int, each: int) -> float:
        """A client's way through a round, from 0 to 1: all clients have the rates of the whole round."""
        if self.data is None:
            return within / each
        for turn in self.plan.turns(self.holders, self.size, self.data.seed, number):
            if within < turn.batches:
                return within / turn.batches
            within -= turn.batches
        return 0.0  # of what fills the round

    def optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return self.fits.optimizer(groups)

    def begin_fit(self, model: TaskModel, data: DataModule, steps: int) -> None:
        self.technique.begin_fit(model, data, steps)
        self.data, self.names = data, list(averaged(model))
        self.turns, self.done, self.rounds, self.sent = [], 0, 0, 0
        self.fits.begin(model, self.names)
        self.gap = FactorGap(self.names)

    def begin_epoch(self, model: TaskModel, epoch: int, epochs: int) -> None:
        self.technique.begin_epoch(model, epoch, epochs)
        if self.data is None:
            return
        if self.turns:  # a round that was cut short
            self._average(model)
        if self.rounds:
            self.fits.restart(model, free=False)
        self.turns = self.plan.turns(self.holders, self.size, self.data.seed, epoch)
        self.sums, self.counted, self.done = {}, 0, 0

    def objective(self, model: TaskModel, task: Task, batch: Batch) -> Tensor:
        loss = self.technique.objective(model, task, batch)
        if not self.proximal or not self.fits.start:
            return loss
        away = [(p - self.fits.start[name]).square().sum() for name, p in parameters(model).items()
                if name in self.fits.start]
        return loss + self.proximal / 2 * torch.stack(away).sum()

    def after_step(self, model: TaskModel, step: int) -> None:
        self.technique.after_step(model, step)
        self.done += 1
        if not self.turns:  # what fills a round trains nothing
            put(model, self.fits.start)
        elif self.done == self.turns[0].batches:
            self._take(model, self.turns.pop(0))
            if not self.turns:
                self._average(model)

    def _take(self, model: TaskModel, turn: Turn) -> None:
        """Add a client's weights to the sum, and let the next begin where it began."""
        getattr(self.fits.made, "eval", lambda: None)()  # what some optimizers average
        own = copies(named(model, self.names))
        getattr(self.fits.made, "train", lambda: None)()
        for name, tensor in own.items():
            share = turn.examples * tensor.cpu().double()
            self.sums[name] = self.sums[name] + share if name in self.sums else share
        assert self.gap is not None
        self.gap.add(own, turn.examples)
        self.counted += turn.examples
        self.sent += sum(tensor.numel() * tensor.element_size() for tensor in own.values())
        self.done = 0
        if self.turns:
            self.fits.restart(model, free=False)

    def _average(self, model: TaskModel) -> None:
        """End a round: the mean is what the next begins from."""
        if self.counted:
            means = {name: total / self.counted for name, total in self.sums.items()}
            put(model, means)
            assert self.gap is not None
            self.gap.close(means)
            self.fits.begin(model, self.names)
            self.rounds += 1
        self.turns, self.sums, self.counted = [], {}, 0

    def settle(self, model: TaskModel, data: DataModule, score: Callable[[], float]) -> None:
        self.technique.settle(model, data, score)
        count = len(set(self.holders))
        gap = self.gap.last if self.gap is not None else math.nan
        far = "" if math.isnan(gap) else (f"; in the last round the mean of the factors lay {gap:.1%} of the mean "
                                          "update away from it")
        self.notes.append(f"Federated: {count} clients, {self.rounds} rounds, "
                          f"{self.sent / 1e6:,.1f} MB up and as many down{far}")

    def costs(self) -> dict[str, float]:
        own = {"bytes_up": float(self.sent), "bytes_down": float(self.sent), "rounds": float(self.rounds)}
        if self.gap is not None and not math.isnan(self.gap.last):
            own["factor_gap"] = self.gap.last
        return self.technique.costs() | own
