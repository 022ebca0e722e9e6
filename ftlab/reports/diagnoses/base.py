"""The contract of diagnoses: pure functions on the records of runs."""

from __future__ import annotations

import math
import statistics
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from ftlab.reports.comparison import Comparison
from ftlab.statistics.power import Noise
from ftlab.tracking.metric_range import is_percent
from ftlab.tracking.records import CellKey

Level = Literal["problem", "warning", "hint"]
LEVELS: tuple[Level, ...] = ("problem", "warning", "hint")
"""A number of the table is not what it seems; it may be; or something is worth knowing."""


@dataclass(frozen=True)
class RunHistory:
    """One run of a cell, as it went.

    Attributes:
        seed: of the run.
        status, reason: MLflow's word, and why it is not FINISHED.
        metrics: final ones.
        history: (step, value) by metric: `train/loss`, `train/grad_norm` of logged steps,
            `train/epoch_loss`, `val/loss` and the selecting metric after each epoch; `train/fit`,
            the number of the epoch's fit from the second on, where a run has several; `epoch`,
            the passes so far. Where validations lie within epochs, each counts as one here.
        notes: what the run took note of, a line each.
        named: target and prediction of each test example, where a class is predicted.
        blocks: names of the model's, from the input to the head; empty where they are not known.
    """

    seed: int
    status: str = "FINISHED"
    reason: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    history: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    notes: str = ""
    named: Mapping[str, Sequence[Any]] | None = None
    blocks: Sequence[str] = ()

    @property
    def finished(self) -> bool:
        """True where its numbers count."""
        return self.status == "FINISHED"

    def epochs(self, metric: str) -> list[float]:
        """A metric after each epoch of the restored one's fit, where a run has several.

        What the restored epoch gave once more is left out.
        """
        ends = set(self.ends)
        return [value for step, value in self.history.get(metric, ()) if step in ends]

    @property
    def ends(self) -> list[int]:
        """Steps that epochs ended with, of the restored one's fit."""
        ends, fits = self._all_ends, dict(self.history.get("train/fit", ()))
        if not 1 <= (best := self._best) <= len(ends):
            return ends
        return [step for step in ends if fits.get(step) == fits.get(ends[best - 1])]

    @property
    def _all_ends(self) -> list[int]:
        return [step for step, _ in self.history.get("train/epoch_loss", ())]

    @property
    def _best(self) -> int:
        """The number of the restored validation, from 1: of epochs, unless steps decide on it."""
        best = self.metrics.get("best_epoch", 0)
        epochs = [epoch for _, epoch in self.history.get("epoch", ())]
        return epochs.index(best) + 1 if best in epochs else int(best)

    def steps(self, metric: str) -> list[tuple[int, float]]:
        """A metric of logged steps."""
        return list(self.history.get(metric, ()))

    @property
    def best_epoch(self) -> int | None:
        """The restored one, from 1 in its fit; None where nothing trained."""
        before = sum(step < self.ends[0] for step in self._all_ends) if self.ends else 0
        return self._best - before if self._best else None


@dataclass(frozen=True)
class CellHistory:
    """A cell with its runs, by seed.

    Attributes:
        key: the cell.
        runs: of its seeds.
        collapsed: as of its `CellSummary`.
    """

    key: CellKey
    runs: tuple[RunHistory, ...]
    collapsed: int | None = None

    @property
    def finished(self) -> list[RunHistory]:
        """The runs that count."""
        return [run for run in self.runs if run.finished]


@dataclass(frozen=True)
class StudyHistory:
    """A study's runs.

    Attributes:
        cells: in the table's order.
        comparisons: of the groups.
        metric: the one compared, with its split.
        select_by: the one that chooses epochs.
        select_upwards: whether more of it is better.
        curves: whether the runs' histories were read.
        noise: of the difference of two techniques, by backbone and data set where seeds tell it.
    """

    cells: tuple[CellHistory, ...]
    comparisons: tuple[Comparison, ...] = ()
    metric: str = "test/accuracy"
    select_by: str = "val/accuracy"
    select_upwards: bool = True
    curves: bool = True
    noise: Mapping[tuple[str, str], Noise] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """Something that a reader of the table should know.

    Attributes:
        level: see `LEVELS`.
        where: the cell, or the group.
        seeds: those that show it; empty where it is of no seed.
        seen: the numbers.
        advice: what to try.
    """

    level: Level
    where: str
    seeds: tuple[int, ...]
    seen: str
    advice: str


NON_FINITE = "non-finite loss"
"""How the reason of a run begins that training's guard ended."""


class Diagnosis(ABC):
    """One thing that can go wrong, a file each. The room is walked: a new file is a new one."""

    title: ClassVar[str]
    """The problem, in some words."""
    rule: ClassVar[str]
    """When it is said, with the reason of the threshold; for readers of the report."""

    @abstractmethod
    def find(self, observed: StudyHistory) -> list[Finding]:
        """Find all cases of it; none in healthy runs."""


def seeds_of(runs: Sequence[RunHistory]) -> tuple[int, ...]:
    """Their seeds."""
    return tuple(run.seed for run in runs)


def mean(values: Sequence[float]) -> float:
    """The mean of the finite values; nan where there is none."""
    numbers = [value for value in values if math.isfinite(value)]
    return statistics.fmean(numbers) if numbers else math.nan


def matters(metric: str, difference: float, value: float) -> bool:
    """Say whether a difference of a validation metric is more than its rounding.

    Two hundredths of a share: the standard error of an accuracy of 0.9 over 225 examples. Of
    other metrics two hundredths of their value.
    """
    return difference > 0.02 * (1.0 if is_percent(metric) else abs(value))


def shown(metric: str, value: float) -> str:
    """A metric's value for people: shares in percent."""
    return f"{100 * value:.1f}%" if is_percent(metric) else f"{value:.4g}"
