"""Streams: examples that each training batch brings along beside its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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
        seed: of the run.
        rank: this process's number, from 0.
        world: number of processes.
    """

    dataset: SplitDataset
    loader: Callable[[Sequence[list[int]]], DataLoader[Any]]
    size: int
    labelled: bool
    seed: int
    rank: int = 0
    world: int = 1

    def of_epoch(self, epoch: int, steps: int) -> Iterator[dict[str, Any]]:
        """The batches of an epoch of `steps` batches."""
        self.dataset.set_epoch(epoch)
        for batch in self.loader(self.positions(epoch, steps)):
            if not self.labelled:
                del batch["target"]
            yield batch

    def positions(self, epoch: int, steps: int) -> list[list[int]]:
        """This process's positions in each batch of an epoch."""
        begin, end = epoch * steps * self.size, (epoch + 1) * steps * self.size
        count = len(self.dataset)
        rounds = range(begin // count, -(-end // count))
        drawn = np.concatenate([np.random.default_rng([self.seed, number]).permutation(count)
                                for number in rounds])
        wanted = drawn[begin - rounds[0] * count:][:end - begin].reshape(steps, self.size)
        return [row[self.rank::self.world].tolist() for row in wanted]
