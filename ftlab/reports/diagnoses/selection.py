"""The choice by validation hangs on the seed, or contradicts the test split."""

from __future__ import annotations

import math
import statistics
from typing import ClassVar

from ftlab.reports.comparison import Comparison
from ftlab.reports.diagnoses.base import (
    CellHistory,
    Diagnosis,
    Finding,
    RunHistory,
    StudyHistory,
    matters,
    mean,
    seeds_of,
    shown,
)
from ftlab.wording import listed

FAR = 0.5
"""Distance of best epochs, of all epochs."""


class Selection(Diagnosis):
    """Another seed, or another validation split, would have chosen otherwise."""

    title: ClassVar[str] = "Selection unstable"
    rule: ClassVar[str] = (
        "The best epochs of the seeds lie more than half of all epochs apart, and with the seeds' "
        "median epoch validation would on average lose more than two hundredths (so that it is no "
        "plateau with noise); or the technique that validation puts first is significantly worse "
        "than the best on the test split.")

    def find(self, observed: StudyHistory) -> list[Finding]:
        unstable = [each_ for cell in observed.cells if (each_ := _epochs(cell, observed)) is not None]
        for comparison in observed.comparisons:
            cells = [cell for cell in observed.cells
                     if (cell.key.backbone, cell.key.dataset) == comparison.group
                     and cell.key.technique in comparison.means]
            if (contrary := _contrary(comparison, cells, observed)) is not None:
                unstable.append(contrary)
        return unstable


def _epochs(cell: CellHistory, observed: StudyHistory) -> Finding | None:
    name, sign = observed.select_by, 1 if observed.select_upwards else -1
    runs = [run for run in cell.finished if run.best_epoch and run.epochs(name)]
    if len(runs) < 2:
        return None
    best = [run.best_epoch or 0 for run in runs]
    count = max(len(run.epochs(name)) for run in runs)
    if max(best) - min(best) <= FAR * count:
        return None
    middle = statistics.median_low(best)
    losses = [sign * (run.metrics.get(name, _best(run, name, sign)) - _at(run, name, middle))
              for run in runs]
    if not matters(name, mean(losses), mean([_at(run, name, middle) for run in runs])):
        return None
    return Finding(
        "hint", cell.key.title, seeds_of(runs),
        f"best epochs {listed([str(epoch) for epoch in best])} of {count}; with epoch {middle} in all "
        f"of them {name} would be {shown(name, mean(losses))} worse on average",
        "more validation examples, a lower learning rate or a schedule that decays, more seeds")


def _at(run: RunHistory, metric: str, epoch: int) -> float:
    values = run.epochs(metric)
    return values[min(epoch, len(values)) - 1]


def _best(run: RunHistory, metric: str, sign: int) -> float:
    return sign * max(sign * value for value in run.epochs(metric))


def _contrary(comparison: Comparison, cells: list[CellHistory], observed: StudyHistory) -> Finding | None:
    """Validation's first choice, where the test split refutes it."""
    name, sign = observed.select_by, 1 if observed.select_upwards else -1
    if observed.metric.partition("/")[2] != name.partition("/")[2]:
        return None  # two metrics may rank otherwise without any doubt about either
    scores = {cell.key.technique: mean([run.metrics[name] for run in cell.finished
                                        if name in run.metrics]) for cell in cells}
    scores = {technique: score for technique, score in scores.items() if math.isfinite(score)}
    if len(scores) < 2:
        return None
    first = max(scores, key=lambda technique: sign * scores[technique])
    if scores[first] == scores.get(comparison.best):
        return None  # validation puts both first
    pair = comparison.against_best(first)
    if first == comparison.best or pair is None or not pair.differs:
        return None
    metric = observed.metric
    backbone, dataset = comparison.group
    return Finding(
        "warning", f"{dataset} from {backbone}", (),
        f"validation puts {first} first ({shown(name, scores[first])}; {comparison.best} "
        f"{shown(name, scores.get(comparison.best, math.nan))}), the test split "
        f"{comparison.best} ({shown(metric, comparison.means[comparison.best])}; {first} "
        f"{shown(metric, comparison.means[first])}), significantly",
        "more validation examples; look whether both splits are drawn alike")
