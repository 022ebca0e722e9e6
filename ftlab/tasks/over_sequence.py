"""Metrics over a sequence of tasks: ACC, BWT, FWT and forgetting of every metric that gives one number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from ftlab.statistics import task_sequences
from ftlab.tasks.metric import Metric
from ftlab.tasks.over_groups import over_group, over_groups, single
from ftlab.tracking.metric_facts import PERCENT, Unit

FINAL, BACKWARD, FORWARD, FORGETTING = "final_", "bwt_", "fwt_", "forgetting_"
"""Beginnings of names: `final_accuracy` (ACC), `bwt_accuracy`, `fwt_accuracy`, `forgetting_accuracy`."""


def over_sequence(metrics: Sequence[Metric]) -> list[Metric]:
    """The metrics over a sequence of tasks of those that give one number.

    Args:
        metrics: of a task.
    """
    def renamed(metric: Metric, begins: str, unit: Unit, higher_is_better: bool) -> Metric:
        return replace(metric, name=f"{begins}{metric.name}", make=None, unit=unit, per_example=None,
                       higher_is_better=higher_is_better, right_or_wrong=False)

    made = []
    for metric in single(metrics):
        upwards, loss = metric.higher_is_better, metric.unit
        change: Unit = "points" if metric.unit in PERCENT else "free"
        if loss not in ("share", "fraction", "error rate"):
            loss = "non-negative"
        made += [renamed(metric, FINAL, metric.unit, upwards), renamed(metric, BACKWARD, change, upwards),
                 renamed(metric, FORWARD, change, upwards), renamed(metric, FORGETTING, loss, False)]
    return made


def derived(metrics: Sequence[Metric]) -> list[Metric]:
    """The metrics over groups, and over a sequence of them, of a task's metrics."""
    return [*over_groups(metrics), *over_sequence(metrics)]


def derived_metric(name: str, metrics: Sequence[Metric]) -> Metric | None:
    """The derived metric of a name, without split prefix; None where there is none."""
    return over_group(name, metrics) or next(
        (entry for entry in over_sequence(metrics) if entry.name == name), None)


def bare(name: str) -> str:
    """The metric that one over a sequence is of, `accuracy` of `bwt_accuracy`; another name as it is."""
    begins = next((one for one in (FINAL, BACKWARD, FORWARD, FORGETTING) if name.startswith(one)), "")
    return name.removeprefix(begins)


def of_sequence(metric: Metric, results: ArrayLike, untrained: ArrayLike) -> dict[str, float]:
    """The metrics over a sequence, computed: of one task, ACC alone.

    Args:
        metric: of which the scores are.
        results: score of each task after each fit (T, T), see `ftlab.statistics.task_sequences`.
        untrained: score of each task before any fit (T,).
    """
    scores = np.asarray(results, dtype=np.float64)
    found = {f"{FINAL}{metric.name}": task_sequences.final_accuracy(scores)}
    if len(scores) > 1:
        # what is lost is 0 or more, whichever way is better; changes keep the metric's own sign
        sign = 1 if metric.higher_is_better else -1
        found |= {f"{BACKWARD}{metric.name}": task_sequences.backward_transfer(scores),
                  f"{FORWARD}{metric.name}": task_sequences.forward_transfer(scores, untrained),
                  f"{FORGETTING}{metric.name}": task_sequences.forgetting(sign * scores)}
    return found
