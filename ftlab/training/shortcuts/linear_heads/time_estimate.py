"""The time that training heads on cached features will take: some steps and a validation, timed."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ftlab.data.examples import SPLITS, SplitName
from ftlab.training.fit import best_epoch
from ftlab.training.guards import TensorGuard
from ftlab.training.run import Run
from ftlab.training.shortcuts.base import NotApplicable
from ftlab.training.shortcuts.linear_heads.cached_head import CachedHead, head_alone
from ftlab.training.shortcuts.linear_heads.head_members import SeedGroup, StackedRun, random_state
from ftlab.training.shortcuts.linear_heads.stacked_heads import StackedFit, order_of

PRODUCTS = 400  # of all rows, which finding and reaching an optimum takes
STEPS, REPEATS = 64, 3  # that are timed at most, and how often: the first time warms up
FEATURES = 2**25  # numbers of a split that are made up at most


@dataclass(frozen=True)
class HeadForecast:
    """Seconds of the whole loop, epochs and validations, features not counted.

    Attributes:
        runs: that train as one stack.
        alone: of one head.
        together: of the stack.
    """

    runs: int
    alone: float
    together: float

    @property
    def saved(self) -> float:
        """Seconds of all runs, negative where the stack is slower."""
        return self.runs * self.alone - self.together


def foresee_heads(run: Run, guard: TensorGuard, runs: int) -> HeadForecast:
    """Time the loop itself on random features of the right shape.

    Args:
        run: adapted; its features need not be cached.
        guard: of its model.
        runs: of one seed each, that train as one stack.

    Raises:
        NotApplicable: its head is trained by the Trainer; says why.
    """
    head = head_alone(run)
    for name, split in run.data.cached_names(SPLITS[:2], run.settings.max_epochs).items():
        _make_up(run, head, name, split)
    outputs = head.target["train"].new_zeros(1, 1, head.linear.out_features, dtype=torch.float32)
    if run.data.task.slope(outputs, head.target["train"][None, :1]) is None:
        raise NotApplicable("its loss states no gradient in closed form")
    alone = _loop(run, head, guard, 1)
    return HeadForecast(runs, alone, _loop(run, head, guard, runs) if runs > 1 else alone)


def foresee_optimum(run: Run, runs: int) -> HeadForecast:
    """Time the products that an optimum takes, of which runs share those of one.

    Args:
        run: adapted, with a solver; its features need not be cached.
        runs: of one seed each, that are solved together.

    Raises:
        NotApplicable: its head is solved by itself; says why.
    """
    head = head_alone(run)
    rows, width = len(run.data.splits["train"]) * len(head.views), head.linear.in_features
    some = min(rows, max(1, FEATURES // width))
    features = torch.rand(some, width, dtype=torch.float64, device=head.linear.weight.device)
    weight = features.new_zeros(head.linear.out_features, width)
    begin = time.perf_counter()
    for _ in range(REPEATS):
        features @ weight.T
    alone = PRODUCTS * (time.perf_counter() - begin) / REPEATS * rows / some
    return HeadForecast(runs, alone, alone)


def _make_up(run: Run, head: CachedHead, name: str, split: SplitName) -> None:
    target = run.data.task.stack(run.data.splits[split].targets)
    if not isinstance(target, Tensor):
        raise NotApplicable("what the head reads is no vector an example")
    device, width = head.linear.weight.device, head.linear.in_features
    rows = min(len(target), max(1, FEATURES // width))
    head.features[name] = torch.rand(rows, width, device=device)
    head.target[split] = target[:rows].to(device)


def _loop(run: Run, head: CachedHead, guard: TensorGuard, runs: int) -> float:
    """Seconds of all epochs of a stack."""
    loader, rows = run.data.train_dataloader(), len(head.training(0))
    begin = time.perf_counter()
    drawn = [batch.tolist() for batch in order_of(loader, 0)]
    order = [[position % rows for position in batch] for batch in drawn]
    drawing = runs * (time.perf_counter() - begin)
    some = order[: STEPS + 1]

    def fastest(part: list[list[int]]) -> float:
        return min(_epoch(run, head, guard, runs, part) for _ in range(REPEATS))

    one = fastest(order[:1])
    steps = max(0.0, fastest(some) - one) / max(1, len(some) - 1)
    judged = one * max(1.0, len(run.data.splits["validation"]) / len(head.features["validation"]))
    return run.settings.max_epochs * (drawing + judged + (len(order) - 1) * steps)


def _epoch(run: Run, head: CachedHead, guard: TensorGuard, runs: int, order: list[list[int]]) -> float:
    """Seconds of an epoch of these batches."""
    settings = replace(run.settings, max_epochs=1, patience=None)
    run = replace(run, settings=settings)
    members = [_member(run, head, guard) for _ in range(runs)]
    fit = StackedFit(head, members)
    fit.loaders = {key: _batches(order) for key in fit.loaders}
    fit.batches = len(order)
    begin = time.perf_counter()
    fit.train()
    if fit.device.type == "cuda":
        torch.cuda.synchronize(fit.device)
    return time.perf_counter() - begin


def _member(run: Run, head: CachedHead, guard: TensorGuard) -> StackedRun:
    seed = SeedGroup(run.data, guard, head.parameters(), random_state(head.linear.weight.device))
    return StackedRun(run, seed, best_epoch(run, run.technique.model, lambda: False), _unheard)


def _unheard(event: dict[str, Any]) -> None:
    """Nobody listens."""


def _batches(order: list[list[int]]) -> DataLoader[Any]:
    """Whose order is this one; nothing is loaded."""
    nothing: Any = range(1)
    return DataLoader(nothing, batch_sampler=order)
