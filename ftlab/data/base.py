"""What every data module is: fixed splits, stable ids, a fingerprint, loaders for one backbone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lightning import LightningDataModule

from ftlab.backbones.base import Backbone
from ftlab.tasks.base import Task

SplitName = Literal["train", "validation", "test"]


@dataclass
class Examples:
    """The examples of one split.

    Attributes:
        ids: stable names, the same whatever the run's seed.
        inputs: raw texts, image paths, ...
        labels: raw labels.
        targets: labels as the task encodes them.
    """

    ids: list[str]
    inputs: list[Any]
    labels: list[Any]
    targets: list[Any] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, positions: Sequence[int]) -> Examples:
        return Examples(*([column[i] for i in positions] if column else []
                          for column in (self.ids, self.inputs, self.labels, self.targets)))


class DataModule(LightningDataModule):
    """Splits, augmentation, sampling and collation of one data set; it knows its task.

    Life: constructor (settings only), `load` (reads and checks everything that can be wrong),
    `connect` (a backbone's preprocessing and the run's seed), then the loaders.

    A batch is a dict: `inputs` (the network's keyword arguments), `target`, and `index`, the
    positions in the split's `Examples` (B,).
    """

    task: Task
    splits: dict[SplitName, Examples]
    notes: list[str]
    """What a user should know once: texts cut, bytes replaced, images converted."""

    @abstractmethod
    def load(self) -> None:
        """Read, split, subset and encode. Calling it again does nothing.

        Raises:
            InputError: with the place and the mend.
        """

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """sha256 over every row (input bytes and label) and its split; needs `load`."""

    @abstractmethod
    def connect(self, backbone: Backbone, seed: int) -> None:
        """Prepare the loaders for a backbone; `seed` fixes order, sampling and augmentation.

        Raises:
            Incompatible: the backbone reads something else.
        """
