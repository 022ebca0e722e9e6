"""Means over tasks and over groups of tasks, seed by seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ftlab.statistics.seed_summary import UNBOUNDED, Range, Summary, summarise

Values = Mapping[int, float]
"""One cell's metric by seed, of its finished runs that have it."""


def over_tasks(tasks: Sequence[Values], limits: Range = UNBOUNDED) -> Summary:
    """The mean over tasks, each of them once, and how it varies over seeds.

    Where all tasks have the same seeds, a seed's value is its mean over the tasks. Else the mean
    of the tasks' means, without spread or interval: seeds that some task lacks cannot be averaged.

    Args:
        tasks: one mapping a task; none may be empty, or there is no mean (n = 0).
        limits: of the metric.
    """
    if not tasks or not all(tasks):
        return summarise([])
    seeds = set(tasks[0])
    if all(set(task) == seeds for task in tasks):
        return summarise((math.fsum(task[seed] for task in tasks) / len(tasks)
                          for seed in sorted(seeds)), limits)
    means = [math.fsum(task.values()) / len(task) for task in tasks]
    nan = math.nan
    return Summary(math.fsum(means) / len(means), nan, min(map(len, tasks)), nan, nan)


def over_groups(groups: Sequence[Sequence[Values]], limits: Range = UNBOUNDED) -> Summary:
    """The mean of the groups' means over tasks: each group counts once, however many tasks it has."""
    if not groups or not all(groups) or not all(task for group in groups for task in group):
        return summarise([])
    seeds = set(groups[0][0])
    if all(set(task) == seeds for group in groups for task in group):
        return over_tasks([_by_seed(group) for group in groups], limits)
    means = [over_tasks(group).mean for group in groups]
    fewest = min(len(task) for group in groups for task in group)
    return Summary(math.fsum(means) / len(means), math.nan, fewest, math.nan, math.nan)


def _by_seed(tasks: Sequence[Values]) -> dict[int, float]:
    return {seed: math.fsum(task[seed] for task in tasks) / len(tasks) for seed in tasks[0]}
