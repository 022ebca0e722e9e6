"""Batches that each example joins by a chance of its own."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np

from ftlab.data.sampling import Sampling


class Poisson(Sampling):
    """Every example joins each batch with the same chance, whatever the others do.

    Batches have `batch_size` examples on average, one may be empty, and an epoch has as many as
    plain training. It is what the accounting of differentially private training supposes, whose
    technique asks for it; nothing else can take an empty batch.
    Source: Abadi et al. (2016), https://arxiv.org/abs/1607.00133
    """

    varies = True

    def __init__(self) -> None:
        super().__init__()

    def class_probabilities(self, counts: Sequence[int]) -> np.ndarray:
        sizes = np.asarray(counts, dtype=float)
        return sizes / sizes.sum()

    def plan(self, strata: Sequence[Hashable | None], size: int, seed: int,
             epoch: int) -> list[list[int]]:
        examples = len(strata)
        generator = np.random.default_rng([seed, epoch])
        return [np.flatnonzero(generator.random(examples) < rate(examples, size)).tolist()
                for _ in range(self.batches(examples, size))]

    def batches(self, examples: int, size: int) -> int:
        return math.ceil(examples / size)


def rate(examples: int, size: int) -> float:
    """The chance of an example to join a batch that has `size` on average."""
    return min(1.0, size / examples)
