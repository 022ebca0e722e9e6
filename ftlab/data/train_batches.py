"""Training batches: which examples they have, and what each counts in its update.

The gradients of several batches (accumulation) and of several processes make one update. It is
that of all their examples in one batch: each batch's mean loss counts by what it is the mean of
(examples, tokens, weights of classes), in an epoch's last, shorter window too.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

from ftlab.data.batches import pick
from ftlab.data.sampling import TrainSampler
from ftlab.data.streams import StreamBatches

Weight = Callable[[dict[str, Any]], float]
"""Units that a batch's loss is the mean of (`Task.weight`)."""

TINY = 1e-300  # divides where nothing counts, and the loss is 0


class BatchShare(NamedTuple):
    """The weight of a batch in its update; batches bring it as `share`.

    Attributes:
        weight: units that the batch's loss is the mean of.
        window: units of all batches that this process adds up before the update.
        batches: by which a loop divides the loss, whatever the window's length.
    """

    weight: float
    window: float
    batches: int = 1

    def of(self, loss: Tensor) -> Tensor:
        """The batch's loss such that the mean over batches and processes is that of all units."""
        if not torch.distributed.is_initialized():
            # a batch alone is its update, also where it is empty
            return loss if self.batches == 1 else loss * (self.batches * self.part)
        whole = torch.tensor(self.window, dtype=torch.float64, device=loss.device)
        torch.distributed.all_reduce(whole)
        world = torch.distributed.get_world_size()
        return loss * (self.batches * world * self.weight / whole.clamp(min=TINY)).to(loss.dtype)

    @property
    def part(self) -> float:
        """The part of this process's window; 0 where nothing in it counts."""
        return self.weight / max(self.window, TINY)


def shares(weights: Sequence[float], accumulate: int) -> list[BatchShare]:
    """The shares of an epoch's batches, or of some whole windows."""
    windows = [weights[i:i + accumulate] for i in range(0, len(weights), accumulate)]
    return [BatchShare(weight, sum(window)) for window in windows for weight in window]


def with_shares(
    batches: Iterable[dict[str, Any]], accumulate: int, weight: Weight
) -> Iterator[dict[str, Any]]:
    """Batches that bring their `share`; those of a window are loaded before the first is given.

    Args:
        batches: of an epoch.
        accumulate: batches of an update.
        weight: of a batch (`Task.weight`).
    """
    rest = iter(batches)
    while window := list(itertools.islice(rest, accumulate)):
        parts = shares([weight(batch) for batch in window], accumulate)
        for batch, part in zip(window, parts, strict=True):
            yield {**batch, "share": part._replace(batches=accumulate)}


class TrainLoader(DataLoader[Any]):
    """Training batches with their `share`, and `beside` them a batch of each stream by its name.

    Args:
        accumulate: batches of an update.
        weight: of a batch (`Task.weight`); None for batches without `share`.
        streams: by name.
        settings: of DataLoader, with a `batch_sampler` of `Batches`.
    """

    batch_sampler: Batches

    def __init__(self, accumulate: int, weight: Weight | None,
                 streams: Mapping[str, StreamBatches], **settings: Any) -> None:
        super().__init__(**settings)
        # as where torch makes the batches of a sampler; it allows no assignment
        object.__setattr__(self, "sampler", self.batch_sampler.sampler)
        self._accumulate, self._weight, self._streams = accumulate, weight, streams
        self._epoch = self._first = 0

    def begin(self, epoch: int) -> None:
        """Follow the sampler into an epoch, from 0."""
        self._epoch = epoch

    def __iter__(self) -> Any:
        self.batch_sampler.first = first = self._first
        self._first = 0
        batches: Iterator[dict[str, Any]] = super().__iter__()
        if self._weight is not None:
            batches = with_shares(batches, self._accumulate, self._weight)
        return self._with_streams(batches, first) if self._streams else batches

    def state_dict(self) -> dict[str, int]:
        """The place of the next pass: an epoch, and its first batch. Lightning's protocol."""
        return {"epoch": self._epoch, "batch": self._first}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next pass, of an epoch, begin with a batch (from 0) that opens an update."""
        set_epoch(self, state["epoch"])  # processes that load begin before Lightning says so
        self._first = state["batch"]

    def _with_streams(self, batches: Iterator[dict[str, Any]], first: int
                      ) -> Iterator[dict[str, Any]]:
        steps = len(self)
        beside = [stream.of_epoch(self._epoch, steps, first) for stream in self._streams.values()]
        for batch, *others in zip(batches, *beside, strict=True):
            yield {**batch, "beside": dict(zip(self._streams, others, strict=True))}

    def made(self, positions: Sequence[int]) -> dict[str, Any]:
        """A batch of given examples, with the first of each stream."""
        batch: dict[str, Any] = self.collate_fn([self.dataset[i] for i in positions])
        beside = {name: next(stream.of_epoch(0, 1)) for name, stream in self._streams.items()}
        return {**batch, "beside": beside} if beside else batch


class Batches(BatchSampler):
    """Batches of positions.

    Args:
        sampler: draws the positions.
        batch_size: of this process.

    Attributes:
        first: batch (from 0) with which a pass begins.
    """

    def __init__(self, sampler: Sampler[int], batch_size: int) -> None:
        super().__init__(sampler, batch_size, drop_last=False)
        self.first = 0

    def __iter__(self) -> Iterator[list[int]]:
        return itertools.islice(self.drawn(), self.first, None)

    def drawn(self) -> Iterator[list[int]]:
        """All batches of an epoch."""
        yield from super().__iter__()  # drawn when the first is asked for: the epoch is known then


class JoinedBatches(Batches):
    """Batches of positions, of which the last one, with a single example, joins the one before.

    Args:
        sampler: draws the positions, such that `leaves_one`.
        batch_size: of this process.
    """

    def __len__(self) -> int:
        return super().__len__() - 1

    def drawn(self) -> Iterator[list[int]]:
        drawn = list(super().drawn())
        yield from drawn[:-2]
        yield [position for batch in drawn[-2:] for position in batch]


class PlannedBatches(Batches):
    """Batches as a sampling composes them.

    Args:
        sampler: of a sampling with a plan.
        batch_size: of this process.
    """

    sampler: TrainSampler

    def __len__(self) -> int:
        return self.sampler.count(self.batch_size)

    def drawn(self) -> Iterator[list[int]]:
        yield from self.sampler.planned(self.batch_size)


@dataclass(frozen=True)
class EmptyToo:
    """Rows -> batch, also of no rows: one without examples, of the shapes that others have.

    Attributes:
        collate: makes a batch of rows.
        dataset: gives a row.
    """

    collate: Callable[[Sequence[Any]], dict[str, Any]]
    dataset: Dataset[Any]

    def __call__(self, rows: Sequence[Any]) -> dict[str, Any]:
        return self.collate(rows) if rows else pick(self.collate([self.dataset[0]]), [])


def leaves_one(examples: int, batch_size: int) -> bool:
    """Return whether the last of several batches has a single example, and the others more."""
    return batch_size > 1 and examples > batch_size and examples % batch_size == 1


@dataclass(frozen=True)
class Update:
    """How training batches become an update.

    Attributes:
        batches: whose gradients are added up.
        joins_last: whether a last batch of one example, which a batch norm cannot take, joins the
            one before.
    """

    batches: int = 1
    joins_last: bool = False

    def loader(self, weight: Weight | None, streams: Mapping[str, StreamBatches]
               ) -> Callable[..., TrainLoader]:
        """Makes a loader from the arguments of DataLoader.

        Args:
            weight: see `TrainLoader`.
            streams: see `TrainLoader`.
        """
        def make(dataset: Dataset[Any], batch_size: int, sampler: TrainSampler,
                 **settings: Any) -> TrainLoader:
            if sampler.plans:
                settings["batch_sampler"] = PlannedBatches(sampler, batch_size)
                settings["collate_fn"] = EmptyToo(settings["collate_fn"], dataset)
            elif self.joins_last and leaves_one(len(sampler), batch_size):
                settings["batch_sampler"] = JoinedBatches(sampler, batch_size)
            else:
                settings["batch_sampler"] = Batches(sampler, batch_size)
            return TrainLoader(self.batches, weight, streams, dataset=dataset, **settings)

        return make


def set_epoch(loader: DataLoader[Any], epoch: int) -> None:
    """Let a loader's sampler draw the order of an epoch (from 0), as Lightning does."""
    batches = loader.batch_sampler
    for sampler in (loader.sampler, batches, getattr(batches, "sampler", None)):
        begin: Callable[[int], None] | None = getattr(sampler, "set_epoch", None)
        if begin is not None:
            begin(epoch)
