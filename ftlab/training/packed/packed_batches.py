"""Batches whose rows are those of several runs, one run after another."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from ftlab.backbones.task_model import Batch
from ftlab.data.base import DataModule
from ftlab.data.train_batches import BatchShare, set_epoch, shares
from ftlab.training.declined import NotApplicable


def tiled(value: Any, times: int, size: int) -> Any:
    """A batch of `size` rows so many times over; what is no rows is left as it is.

    Raises:
        Declined: a tensor is no row an example.
    """
    if isinstance(value, Mapping):
        return {name: tiled(each, times, size) for name, each in value.items()}
    if isinstance(value, Tensor):
        if not value.ndim or len(value) != size:
            raise NotApplicable("a batch holds a tensor that has no row an example")
        return value.repeat(times, *[1] * (value.ndim - 1))
    return value * times if isinstance(value, list) else value


def part(value: Any, slot: int, size: int) -> Any:
    """A slot's rows of a batch."""
    own = slice(slot * size, (slot + 1) * size)
    if isinstance(value, Mapping):
        return {name: part(each, slot, size) for name, each in value.items()}
    return value[own] if isinstance(value, Tensor | list) else value


def parts(outputs: Any, slots: int, size: int) -> list[Any]:
    """What a model returned for each slot's rows.

    Raises:
        Declined: it returned a tensor that has no row an example.
    """
    for leaf in pytree.tree_leaves(outputs):
        if isinstance(leaf, Tensor) and (not leaf.ndim or len(leaf) != slots * size):
            raise NotApplicable("the model's outputs are not a row an example")
    return [pytree.tree_map_only(Tensor, partial(part, slot=slot, size=size), outputs)
            for slot in range(slots)]


class Batches:
    """Each run's own training batches, side by side.

    Args:
        data: of each run; one and the same object where the order is the same.
        accumulate: batches of an update.
    """

    def __init__(self, data: Sequence[DataModule], accumulate: int) -> None:
        self.orders = list({id(each): each for each in data}.values())
        self.accumulate = accumulate
        self.loaders = [each.train_dataloader() for each in self.orders]
        self.collate = self.loaders[0].collate_fn
        if len(self.orders) > 1:
            for loader in self.loaders:
                loader.collate_fn = list
        if len({len(loader) for loader in self.loaders}) > 1:
            raise NotApplicable("the runs have unequally many batches")

    def __len__(self) -> int:
        return len(self.loaders[0])

    def epoch(self, epoch: int) -> Iterator[Rows]:
        """The epoch's batches in order."""
        for loader in self.loaders:
            set_epoch(loader, epoch)
        drawn = zip(*self.loaders, strict=True)
        while window := list(itertools.islice(drawn, self.accumulate)):
            counted = [shares([self._weight(rows) for rows in own], self.accumulate)
                       for own in zip(*window, strict=True)]
            for rows, parts in zip(window, zip(*counted, strict=True), strict=True):
                yield Rows(self, rows, parts)

    def _weight(self, rows: Any) -> float:
        """Units that the loss of an order's batch is the mean of."""
        batch = rows if len(self.orders) == 1 else self.collate(rows)
        return self.orders[0].task.weight(batch)


class Rows:
    """The rows that each order has drawn for one step, and what they count in its update."""

    def __init__(self, batches: Batches, drawn: Sequence[Any], parts: Sequence[BatchShare]) -> None:
        self.batches, self.drawn, self.parts = batches, drawn, parts

    def shares(self, data: Sequence[DataModule]) -> list[BatchShare]:
        """The share of each of those runs."""
        by_data = {id(each): part for each, part
                   in zip(self.batches.orders, self.parts, strict=True)}
        return [by_data[id(each)] for each in data]

    def of(self, data: Sequence[DataModule]) -> tuple[Batch, int]:
        """The batch of those runs, and how many rows each has in it.

        Raises:
            Declined: the runs have unequally many.
        """
        if len(self.batches.orders) == 1:
            size = len(self.drawn[0]["index"])
            return tiled(self.drawn[0], len(data), size), size
        by_data = {id(each): rows for each, rows
                   in zip(self.batches.orders, self.drawn, strict=True)}
        rows = [by_data[id(each)] for each in data]
        if len({len(each) for each in rows}) > 1:
            raise NotApplicable("the runs' batches are not of one size")
        # together, so that all are padded to the widest
        return self.batches.collate([row for each in rows for row in each]), len(rows[0])
