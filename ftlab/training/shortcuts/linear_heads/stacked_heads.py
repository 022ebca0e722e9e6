"""Runs whose heads train as one stack on cached features, without inputs and without the Trainer."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ftlab.data.groups import SplitScores
from ftlab.data.train_batches import set_epoch, shares
from ftlab.errors import GuardFailed
from ftlab.techniques.single_precision import in_single_precision
from ftlab.training import costs
from ftlab.training.event_log import EVERY, EventLog, Losses, mean_of, metrics_event
from ftlab.training.shortcuts.linear_heads.cached_head import CachedHead
from ftlab.training.shortcuts.linear_heads.head_members import (
    SeedGroup,
    StackedRun,
    put_random,
    random_state,
)
from ftlab.training.shortcuts.linear_heads.stacked_linear import StackedLinear


def train_stack(
    members: Sequence[StackedRun], head: CachedHead, memory: costs.MemoryMeter, cached: float
) -> dict[str, float]:
    """Train the heads of several runs, those of one optimizer in one stack.

    Args:
        members: those of one seed together; each is left with its weights, or its error.
        head: of the model that they share.
        memory: measures.
        cached: seconds that the features took.

    Returns:
        What the fit cost a run: its share of the seconds, and the memory of all.
    """
    memory.start()
    begin = time.perf_counter()
    steps: list[float] = []
    for optimizer in dict.fromkeys(member.run.technique.optim.optimizer for member in members):
        alike = [m for m in members if m.run.technique.optim.optimizer == optimizer]
        fit = StackedFit(head, alike)
        fit.train()
        steps += [seconds / len(alike) for seconds in fit.step_seconds]
    return {
        "cost/train_seconds": (time.perf_counter() - begin) / len(members),
        "cost/peak_memory_bytes": float(memory.peak()),
        "cost/step_seconds": statistics.median(steps),
        "cost/prefix_seconds": cached / len(members),
    }


class StackedFit:
    """Trains the heads of several runs, one group per seed.

    Args:
        head: of the model that the runs share.
        members: of equal optimizer, those of one seed together.

    Attributes:
        step_seconds: of each step of the stack.
    """

    def __init__(self, head: CachedHead, members: Sequence[StackedRun]) -> None:
        settings, task = members[0].run.settings, members[0].run.data.task
        self.head, self.task, self.settings = head, task, settings
        self.alive = list(members)
        self.seeds = _distinct([member.seed for member in members])
        self.loaders: dict[int, DataLoader[Any]] = {
            id(seed): seed.data.train_dataloader() for seed in self.seeds}
        self.batches = len(self.loaders[id(self.seeds[0])])
        updates = math.ceil(self.batches / settings.accumulate) * settings.max_epochs
        optims = [member.run.technique.optim for member in members]
        schedules = {(optim.schedule, optim.warmup): [optim.factor(step, updates)
                                                      for step in range(updates + 1)]
                     for optim in optims}
        self.factors = [schedules[optim.schedule, optim.warmup] for optim in optims]
        starts = [member.seed.start for member in members]
        self.heads = StackedLinear(
            [start[0].to(self.device) for start in starts],
            [start[1].to(self.device) for start in starts] if len(starts[0]) > 1 else None,
            [self.seeds.index(member.seed) for member in members],
            [member.run.technique.lr for member in members],
            [optim.weight_decay for optim in optims], optims[0].optimizer, head.products)
        self.target = head.target["train"].cpu()  # so that no step waits for the device
        self.scores = SplitScores(task, members[0].run.technique.validation_groups).to(self.device)
        self.log = EventLog(settings.log_every, [member.report for member in members])
        self.step_seconds: list[float] = []
        self.random = {id(seed): seed.random for seed in self.seeds}
        self._settle()

    @property
    def device(self) -> torch.device:
        """The device of features and heads."""
        return self.head.linear.weight.device

    def _settle(self) -> None:
        """Set what follows from the heads that are left: schedules by slot, the seed of dropout."""
        first = self.factors[0]
        if all(factors is first for factors in self.factors):
            self.table = torch.tensor(first, dtype=torch.float64)
        else:
            self.table = torch.zeros(len(first), self.heads.count, dtype=torch.float64)
            self.table[:, self.heads.slots] = torch.tensor(self.factors, dtype=torch.float64).T
        self.table = self.table.to(self.head.linear.weight)
        if len(self.seeds) == 1:
            put_random(self.device, self.random[id(self.seeds[0])])

    def train(self) -> None:
        """All epochs, or fewer where no head is left; torch's generator stays as it is."""
        self.head.linear.train()
        for dropout in self.head.dropouts:
            dropout.train()
        cuda = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda), torch.no_grad():
            self._settle()
            for epoch in range(1, self.settings.max_epochs + 1):
                losses = self._epoch(epoch)
                self.log.flush()
                self._validate(epoch, losses)
                self._drop(epoch == self.settings.max_epochs)
                if not self.alive:
                    return

    def _epoch(self, epoch: int) -> Tensor:
        """Train one epoch; the mean loss of its batches per slot."""
        features = self.head.training(epoch - 1)
        orders = [order_of(self.loaders[id(seed)], epoch - 1) for seed in self.seeds]
        parts = [shares([self._weight(batch) for batch in order], self.settings.accumulate)
                 for order in orders]
        epoch_losses, window = Losses(), 0
        finite = torch.ones(self.heads.count, dtype=torch.bool, device=self.device)
        for number, (indices, counted) in enumerate(
            zip(zip(*orders, strict=True), zip(*parts, strict=True), strict=True), 1
        ):
            begin, last, window = time.perf_counter(), number == self.batches, window + 1
            losses = self._gradients(features, indices, [share.part for share in counted])
            epoch_losses.add(losses, [share.weight for share in counted])
            finite &= torch.isfinite(losses)
            due = window == self.settings.accumulate or last
            if due:
                step = self.heads.steps
                norm = self.heads.update(self.table[step], self.settings.gradient_clip)
            self.step_seconds.append(time.perf_counter() - begin)
            if due and self.log.wants(step + 1, last):
                self._log_step(step, mean_of(epoch_losses.sums(window)), norm)
            window = 0 if due else window
            if number % EVERY == 0 or last:
                self._look(epoch, number, finite)
        return mean_of(epoch_losses.sums())

    def _weight(self, index: Tensor) -> float:
        """Units that a batch's loss is the mean of."""
        return self.task.weight({"target": self.target[index], "index": index})

    def _gradients(self, features: Tensor, indices: Sequence[Tensor],
                   parts: Sequence[float]) -> Tensor:
        """Add the gradients of a batch per seed, each times its part; the losses per slot."""
        drawn = [self._draw(seed, features[index])
                 for seed, index in zip(self.seeds, indices, strict=True)]
        targets = [self.head.target["train"][index] for index in indices]
        if len({len(rows) for rows in drawn}) == 1:
            return self.heads.add_gradient(
                torch.stack(drawn), torch.stack(targets), self.task.slope, parts)
        return torch.cat([  # batches of unequal length have no common product
            self.heads.add_gradient(rows[None], target[None], self.task.slope, [part],
                                    slice(group, group + 1))
            for group, (rows, target, part) in enumerate(zip(drawn, targets, parts, strict=True))])

    def _draw(self, seed: SeedGroup, features: Tensor) -> Tensor:
        """A batch's features (B, D) with the dropout that the seed's runs have alone."""
        if len(self.seeds) == 1 or not self.head.dropouts:
            return self.head.dropped(features)
        put_random(self.device, self.random[id(seed)])
        features = self.head.dropped(features)
        self.random[id(seed)] = random_state(self.device)
        return features

    def _log_step(self, step: int, losses: Tensor, norm: Tensor) -> None:
        rates = [member.run.technique.lr * factors[step]
                 for member, factors in zip(self.alive, self.factors, strict=True)]
        slots = self.heads.slots
        self.log.add(step + 1, {
            "train/loss": losses[slots], "train/lr": torch.tensor(rates, dtype=torch.float64),
            "train/grad_norm": norm[slots],
            "train/step_seconds": self.step_seconds[-1] / len(self.alive)})

    def _look(self, epoch: int, batch: int, finite: Tensor) -> None:
        """A non-finite loss fails its run alone; it is dropped after the epoch."""
        if not bool(finite.all()):
            for member, good in zip(self.alive, finite[self.heads.slots].tolist(), strict=True):
                if not good and member.error is None:
                    member.error = GuardFailed(
                        f"non-finite loss at or before step {self.heads.steps}")
        if self.log.quiet or batch == self.batches:
            self.log.progress((epoch - 1) * self.batches + batch,
                              self.settings.max_epochs * self.batches)

    def _validate(self, epoch: int, losses: Tensor) -> None:
        """Judge every run's epoch by the cached features of the validation split."""
        means = losses[self.heads.slots].tolist()
        outputs = self.heads.outputs_of(self.head.features["validation"])
        for number, (member, logits, mean) in enumerate(
            zip(self.alive, outputs, means, strict=True)
        ):
            self.log.alive()
            if member.error is None:
                scores = self._scores(member, logits)
                values = {**scores, "train/epoch_loss": mean, "epoch": epoch}
                member.report(metrics_event(self.heads.steps, values))
                self._judge(member, number, scores, epoch)

    def _scores(self, member: StackedRun, outputs: Tensor) -> dict[str, float]:
        """As the technique's own validation, in one batch."""
        target = self.head.target["validation"]
        batch = {"target": target, "index": torch.arange(len(target), device=self.device)}
        outputs = in_single_precision(outputs)
        loss = self.task.loss(outputs, batch)
        predictions = self.task.predict(member.run.technique.model, batch, outputs)
        self.scores.update(predictions, batch, loss)
        scalars = self.scores.compute()
        self.scores.reset()
        # Lightning keeps what is logged in float32, and ties are decided by it
        return {f"val/{name}": float(torch.tensor(value, dtype=torch.float32))
                for name, value in scalars.items()}

    def _judge(
        self, member: StackedRun, number: int, scores: dict[str, float], epoch: int
    ) -> None:
        try:
            better = member.best.judge(scores, epoch)
        except GuardFailed as error:
            member.error = error
            return
        if better:
            member.kept = self.heads.head(number)
        member.over = member.best.ends(epoch == self.settings.max_epochs)

    def _drop(self, all_over: bool) -> None:
        """Take the heads that are done out of the stack."""
        left = []
        for number, member in enumerate(self.alive):
            if all_over or member.over or member.error is not None:
                member.final = self.heads.head(number)
            else:
                left.append(number)
        if len(left) == len(self.alive):
            return
        self.alive = [self.alive[number] for number in left]
        if not left:
            return
        self.factors = [self.factors[number] for number in left]
        self.seeds = _distinct([member.seed for member in self.alive])
        self.log.reports = [member.report for member in self.alive]
        self.heads.keep(left)
        self._settle()


def _distinct(seeds: Sequence[SeedGroup]) -> list[SeedGroup]:
    return list({id(seed): seed for seed in seeds}.values())


def order_of(loader: DataLoader[Any], epoch: int) -> Sequence[Tensor]:
    """Positions of each batch of an epoch, as the loader would draw them; nothing is loaded."""
    set_epoch(loader, epoch)
    batches: Any = loader.batch_sampler
    drawn = list(batches)
    flat = torch.tensor([position for batch in drawn for position in batch])
    return flat.split([len(batch) for batch in drawn])
