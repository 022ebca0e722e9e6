"""The events of runs that train: metrics, progress, signs of life, on their way out of the process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Report = Callable[[dict[str, Any]], None]
"""Takes one event of a run: a dict with the key `event`."""

ALIVE = {"event": "alive"}
"""A sign of life where there is nothing to say; a run without one for long is ended."""

EVERY = 10  # steps from one look at the loss to the next: a look waits for the device
HEARTBEAT = 1.0  # seconds from one sign of life to the next, where steps are long
LONGEST_WAIT = 1.5  # seconds; with the tracker's own wait less than 5, which a kill may cost


class Losses:
    """Mean losses of batches, which stay on their device, and how many units each is the mean of.

    A batch's loss is a scalar and its weight a number; of a stack they are a loss per slot (S) and a
    weight per group, of as many slots each.
    """

    def __init__(self) -> None:
        self.values: list[Tensor] = []
        self.weights: list[float | Sequence[float]] = []

    def __len__(self) -> int:
        return len(self.values)

    def add(self, loss: Tensor, weight: float | Sequence[float]) -> None:
        """Keep a batch's loss."""
        self.values.append(loss)
        self.weights.append(weight)

    def clear(self) -> None:
        """Begin another epoch."""
        self.values.clear()
        self.weights.clear()

    def sums(self, last: int | None = None) -> Tensor:
        """Sums of the units' losses and of the units (2, ...), over all batches or the last so many."""
        first = 0 if last is None else len(self) - last
        values = torch.stack(self.values[first:])
        weights = torch.tensor(self.weights[first:], dtype=values.dtype, device=values.device)
        if values.ndim > 1:
            weights = weights.repeat_interleave(values.shape[1] // weights.shape[1], dim=1)
        return torch.stack([(values * weights).sum(dim=0), weights.sum(dim=0)])


def mean_of(sums: Tensor) -> Tensor:
    """The mean loss, from `Losses.sums`; 0 where no unit counts."""
    return sums[0] / sums[1].clamp(min=torch.finfo(sums.dtype).tiny)


class EventLog:
    """Reports what one loop has to say of the runs that it trains.

    Metrics of steps are kept as tensors for a while, so that no step waits for its device.

    Args:
        every: steps from one whose metrics are kept to the next.
        reports: of the runs that train together, one each.
    """

    def __init__(self, every: int, reports: Sequence[Report]) -> None:
        self.every, self.reports = every, list(reports)
        self._waiting: list[tuple[int, int, Mapping[str, Tensor | float]]] = []
        self._flushed = time.monotonic()
        self._spoke = 0.0

    @property
    def quiet(self) -> bool:
        """True when a sign of life is due."""
        return time.perf_counter() - self._spoke > HEARTBEAT

    def alive(self) -> None:
        """Give a sign of life, if one is due."""
        if self.quiet:
            self._tell(ALIVE)

    def progress(self, done: int, total: int) -> None:
        """Report batches done, of all epochs' batches."""
        self._tell({"event": "progress", "phase": "fit", "done": done, "total": total})

    def _tell(self, event: dict[str, Any]) -> None:
        self._spoke = time.perf_counter()
        for report in self.reports:
            report(event)

    def wants(self, step: int, last: bool = False) -> bool:
        """Return whether a step is kept; the last of an epoch always is."""
        return last or step % self.every == 0

    def add(self, step: int, values: Mapping[str, Tensor | float]) -> None:
        """Keep a step's metrics: numbers, or tensors with an entry per run."""
        self._waiting.append((step, time.time_ns() // 1_000_000, values))
        if time.monotonic() - self._flushed > LONGEST_WAIT:
            self.flush()

    def flush(self) -> None:
        """Report what waits, in order."""
        self._flushed = time.monotonic()
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        columns = {name: _columns([values[name] for _, _, values in waiting], len(self.reports))
                   for name in waiting[0][2]}
        for number, report in enumerate(self.reports):
            rows = zip(*(column[number] for column in columns.values()), strict=True)
            for (step, at, _), row in zip(waiting, rows, strict=True):
                report(metrics_event(step, dict(zip(columns, row, strict=True)), at))


def metrics_event(step: int, metrics: Mapping[str, float], at: int | None = None) -> dict[str, Any]:
    """The event of metrics that were measured after a step.

    Args:
        step: updates so far.
        metrics: by name.
        at: when, in milliseconds since 1970; None for now.
    """
    at = time.time_ns() // 1_000_000 if at is None else at
    return {"event": "metrics", "step": step, "time": at, "metrics": dict(metrics)}


def heard(batches: Iterable[Any], report: Report) -> Iterator[Any]:
    """The batches, with a sign of life whenever one is due."""
    log = EventLog(1, [report])
    for batch in batches:
        log.alive()
        yield batch


def _columns(values: Sequence[Tensor | float], runs: int) -> list[list[float]]:
    """The values of each run, step by step; one copy from the device."""
    if isinstance(values[0], Tensor):
        stacked = torch.stack([value.reshape(-1) for value in values if isinstance(value, Tensor)])
        columns: list[list[float]] = stacked.expand(-1, runs).T.tolist()
        return columns
    return [[float(value) for value in values]] * runs
