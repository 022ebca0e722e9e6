"""Streams: examples that each training batch brings along beside its own."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, groupby
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from ftlab.data.batches import SplitDataset


@dataclass
class StreamBatches:
    """The batches of one stream, as many in an epoch as the training examples have.

    A stream is its examples in one random order after another, without end. The b-th batch of the
    whole fit takes the b-th `size` of them, so that which examples a step sees follows from the
    seed and the step's number alone. Of several processes each takes its share.

    Attributes:
        dataset: the stream's rows.
        loader: makes a loader of batches of given positions.
        size: examples in a batch, over all processes.
        labelled: whether batches keep their `target`.
        name: of the stream, which has an order of its own.
        seed: of the run.
        rank: this process's number, from 0.
        world: number of processes.
    """

    dataset: SplitDataset
    loader: Callable[[Sequence[list[int]]], DataLoader[Any]]
    size: int
    labelled: bool
    name: str
    seed: int
    rank: int = 0
    world: int = 1

    def of_epoch(self, epoch: int, steps: int, begin: int = 0) -> Iterator[dict[str, Any]]:
        """The batches of an epoch of `steps` batches, from one (counted from 0) on."""
        first = epoch * steps + begin
        rounds = groupby(zip(count(first), self.positions(epoch, steps)[begin:]),
                         key=lambda numbered: numbered[0] * self.size // len(self.dataset))
        for number, batches in rounds:
            self.dataset.set_epoch(number)  # augmentation is another one when an example comes again
            for batch in self.loader([positions for _, positions in batches]):
                if not self.labelled:
                    del batch["target"]
                yield {**batch, "stream": self.name}  # its `index` is of other examples

    def positions(self, epoch: int, steps: int) -> list[list[int]]:
        """This process's positions in each batch of an epoch."""
        begin, end = epoch * steps * self.size, (epoch + 1) * steps * self.size
        examples, own = len(self.dataset), zlib.crc32(self.name.encode()) + 1
        rounds = range(begin // examples, -(-end // examples))
        # the name's number stands last, and is not zero: a data set draws by [seed, epoch]
        drawn = np.concatenate([np.random.default_rng([self.seed, number, own]).permutation(examples)
                                for number in rounds])
        wanted = drawn[begin - rounds[0] * examples:][:end - begin].reshape(steps, self.size)
        return [row[self.rank::self.world].tolist() for row in wanted]
