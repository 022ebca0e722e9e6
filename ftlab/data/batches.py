"""From one example to a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ftlab.backbones.prefix import Rows


class Row(NamedTuple):
    """One example on its way into a batch; `epoch` seeds what is random in the collation."""

    input: Any
    target: Any
    position: int
    epoch: int


class SplitDataset(Dataset[Row]):
    """The examples of one split as rows. It holds no data module, so that workers can have it.

    Args:
        targets: encoded labels.
        seed: of the run, for augmentation.
    """

    def __init__(self, targets: Sequence[Any], seed: int) -> None:
        self.targets = targets
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Row:
        return Row(self.input(index), self.targets[index], index, self.epoch)

    def input(self, index: int) -> Any:
        """What `Collate.inputs` turns into the network's inputs."""
        raise NotImplementedError


@dataclass(frozen=True)
class Collate:
    """Rows -> batch.

    Attributes:
        inputs: the rows' inputs -> the network's keyword arguments.
        stack: targets -> what the loss reads, a tensor mostly (`Task.stack`).
    """

    inputs: Callable[[Sequence[Any]], dict[str, Tensor]]
    stack: Callable[[Sequence[Any]], Any]

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        return {"inputs": self.inputs([row.input for row in rows]),
                "target": self.stack([row.target for row in rows]),
                "index": torch.tensor([row.position for row in rows])}



@dataclass(frozen=True)
class Handing:
    """Rows -> batch, with what is known of the split's examples as `prefix`.

    Attributes:
        collate: makes the batch.
        known: goes with the batch to the model as it is.
    """

    collate: Callable[[Sequence[Row]], dict[str, Any]]
    known: Rows

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        return {**self.collate(rows), "prefix": self.known}
