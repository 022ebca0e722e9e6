"""The cost and saving of a prefix cache, estimated from one batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

WRITE = 3e8
"""Bytes a second that are written, summed up and flushed; of a slow SSD."""
CHECK = 2.5e9
"""Bytes a second that are mapped and summed up when a file is opened."""
MARGIN = 0.15  # of what is foreseen, by which the measured differs
REPEATS, LONG = 3, 0.1  # calls, and seconds of all together


@dataclass(frozen=True)
class Forecast:
    """Costs of a frozen prefix for the runs to come, in seconds, with and without a cache.

    Attributes:
        runs: that will read it, this one among them.
        plain: computing it in every pass of all these runs.
        build: computing and writing once what is not on disk yet.
        read: checking it once a run, and reading it in every pass.
        bytes: that it takes on disk.
    """

    runs: int
    plain: float
    build: float
    read: float
    bytes: int

    @property
    def saved(self) -> float:
        """Seconds, negative where the cache would cost more than it saves."""
        return self.plain - self.build - self.read

    @property
    def pays(self) -> bool:
        """True where it saves more than the estimate may be wrong by."""
        return self.saved > MARGIN * self.plain

    def __str__(self) -> str:
        many = f"{self.runs} runs to come" if self.runs > 1 else "this run"
        return (f"{self.plain:.3g} s without and {self.build + self.read:.3g} s with it, "
                f"in {many}, as foreseen")


@dataclass(frozen=True)
class ForwardPasses:
    """How often the examples of a split pass through the network in one run.

    Attributes:
        training: in the order of training.
        evaluation: in the order of evaluation, by falling length.
    """

    training: int = 0
    evaluation: int = 0


@dataclass(frozen=True)
class CacheFile:
    """A file of the cache: one split, or one view of it.

    Attributes:
        examples: in the split.
        passes: of one run.
        training, evaluation: work of one pass in that order, in units of `BatchTiming.compute`:
            tokens with their padding, or examples.
        there: whether it is on disk.
    """

    examples: int
    passes: ForwardPasses
    training: float
    evaluation: float
    there: bool


@dataclass(frozen=True)
class BatchTiming:
    """Costs of one batch.

    Attributes:
        compute: seconds per unit of work.
        read: seconds per example.
        bytes: per example, on disk.
    """

    compute: float
    read: float
    bytes: float


def foresee(measured: BatchTiming, parts: Sequence[CacheFile], runs: int) -> Forecast:
    """The cost and saving of the parts of a cache over so many runs."""
    work = sum(part.passes.training * part.training + part.passes.evaluation * part.evaluation
               for part in parts)
    reads = sum(part.examples * (part.passes.training + part.passes.evaluation) for part in parts)
    size = measured.bytes * sum(part.examples for part in parts)
    absent = [part for part in parts if not part.there]
    build = (measured.compute * sum(part.evaluation for part in absent)
             + measured.bytes * sum(part.examples for part in absent) / WRITE)
    return Forecast(runs, runs * measured.compute * work, build,
                    runs * (measured.read * reads + size / CHECK), int(size))


def padded(lengths: Sequence[int], order: Sequence[int], size: int) -> float:
    """Tokens of one pass in batches of `size`, each padded to its longest."""
    ordered = [lengths[i] for i in order]
    batches = [ordered[i : i + size] for i in range(0, len(ordered), size)]
    return float(sum(max(batch) * len(batch) for batch in batches))


def fastest(act: Callable[[], object]) -> float:
    """Seconds of the fastest of up to three calls; of a long one, which evens out, the first."""
    seconds: list[float] = []
    while len(seconds) < REPEATS and sum(seconds) < LONG:
        begin = time.perf_counter()
        act()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def stored_bytes(handed: Sequence[Tensor], masks: Sequence[Tensor | None]) -> int:
    """Bytes that a batch takes on disk: padding is not stored."""
    return sum(
        tensor.dtype.itemsize * (tensor.numel() if mask is None else
                                 int(mask.sum()) * tensor[0, 0].numel())
        for tensor, mask in zip(handed, masks, strict=True))
