"""From one example to a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ftlab.backbones.task_model import CachedRows


class ExampleRow(NamedTuple):
    """One example on its way into a batch; `epoch` seeds what is random in the collation."""

    input: Any
    target: Any
    position: int
    epoch: int


def checked_views(views: int | None) -> int | None:
    """How many views an augmentation has, if it is possible."""
    if views is not None and views < 1:
        raise ValueError(f"views must be at least 1, got {views}")
    return views


class SplitDataset(Dataset[ExampleRow]):
    """The examples of one split as rows. It holds no data module, so that workers can have it.

    Args:
        targets: encoded labels.
        seed: of the run, for augmentation.
    """

    views: int | None = None
    shape: tuple[int, ...] | None = None
    """Of the network's input for one example, a tensor of floats; None where it differs."""
    names: bool = False
    """Whether rows only name their inputs, so that there is nothing to load."""

    def __init__(self, targets: Sequence[Any], seed: int) -> None:
        self.targets = targets
        self.seed = seed
        self.epoch = 0

    def keep(self, views: int) -> None:
        """Change each example in so many ways, one an epoch, the same ways in every run."""
        self.views, self.seed = views, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch % self.views if self.views else epoch

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> ExampleRow:
        return ExampleRow(self.input(index), self.targets[index], index, self.epoch)

    def input(self, index: int) -> Any:
        """The value that `Collate.inputs` turns into the network's inputs."""
        raise NotImplementedError


class BlankInputs(SplitDataset):
    """Rows of a data set whose inputs are not read: each has the same one, of NaN.

    Args:
        dataset: its inputs have one shape.
    """

    def __init__(self, dataset: SplitDataset) -> None:
        super().__init__(dataset.targets, dataset.seed)
        self.views = dataset.views
        assert dataset.shape is not None
        self.blank = torch.full(dataset.shape, torch.nan)

    def input(self, index: int) -> Tensor:
        return self.blank


def in_batches(order: Sequence[int], size: int) -> list[list[int]]:
    """Batches of positions in their order, of which a last one of one joins the one before.

    Batch norms have no variance of one.
    """
    parts = [list(order[start:start + size]) for start in range(0, len(order), size)]
    if len(parts) > 1 and len(parts[-1]) == 1:
        lone = parts.pop()
        parts[-1] += lone
    return parts


def batch_count(examples: int, size: int) -> int:
    """The number of batches that `in_batches` makes."""
    return math.ceil(examples / size) - (examples > size and examples % size == 1)


def pick(batch: Mapping[str, Any], positions: Sequence[int]) -> dict[str, Any]:
    """Some examples of a batch, whatever is nested in it; cached rows follow its `index`.

    Streams are left out, whose examples are others.

    Args:
        batch: of any data module.
        positions: in the batch.
    """
    return {name: _picked(value, positions) for name, value in batch.items()
            if name not in ("share", "beside")}


def _picked(value: Any, positions: Sequence[int]) -> Any:
    if isinstance(value, Mapping):
        return pick(value, positions)
    if isinstance(value, Tensor):
        return value[torch.as_tensor(positions, dtype=torch.long, device=value.device)]
    if isinstance(value, list | tuple):
        return [value[position] for position in positions]
    return value


@dataclass(frozen=True)
class Collate:
    """Rows -> batch.

    Attributes:
        inputs: the rows' inputs -> the network's keyword arguments.
        stack: targets -> what the loss reads, a tensor mostly (`Task.stack`).
    """

    inputs: Callable[[Sequence[Any]], dict[str, Tensor]]
    stack: Callable[[Sequence[Any]], Any]

    def __call__(self, rows: Sequence[ExampleRow]) -> dict[str, Any]:
        return {"inputs": self.inputs([row.input for row in rows]),
                "target": self.stack([row.target for row in rows]),
                "index": torch.tensor([row.position for row in rows])}


@dataclass(frozen=True)
class CachedCollate:
    """Rows -> batch that brings as `prefix` the cached rows of its split, or of its view.

    Attributes:
        collate: makes the batch.
        cached: by the name of the split or view.
        split: of the rows.
        views: whether a name has the number of the view behind it.
    """

    collate: Callable[[Sequence[ExampleRow]], dict[str, Any]]
    cached: Mapping[str, CachedRows]
    split: str
    views: bool

    def __call__(self, rows: Sequence[ExampleRow]) -> dict[str, Any]:
        name = f"{self.split}/{rows[0].epoch}" if self.views else self.split
        return {**self.collate(rows), "prefix": self.cached[name]}
