"""The columns that average over a study's data sets, and the rule that they follow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ftlab.reports.grid import GridRow
from ftlab.statistics.averages import Values, over_groups, over_tasks
from ftlab.statistics.seed_summary import Summary
from ftlab.tracking.metric_range import limits

TASKS, GROUPS = "mean over tasks", "mean over groups"


def names(datasets: Sequence[str], groups: Mapping[str, Sequence[str]]) -> list[str]:
    """The columns: none for one data set; the groups' and their mean where there are groups."""
    if len(datasets) < 2:
        return []
    return [*(f"mean of {group}" for group in groups), *([GROUPS] if groups else []), TASKS]


def means(values: Mapping[str, Values], datasets: Sequence[str],
          groups: Mapping[str, Sequence[str]], metric: str = "") -> dict[str, Summary]:
    """One technique's averages, by column.

    Args:
        values: by data set; an incomplete cell's are empty, and no average covers it.
        datasets: all that the study has.
        groups: names of data sets by group.
        metric: its name, which says its range.
    """
    if len(datasets) < 2:
        return {}
    by_group = {group: [values.get(name, {}) for name in members]
                for group, members in groups.items()}
    averages = {f"mean of {group}": over_tasks(tasks, limits(metric))
                for group, tasks in by_group.items()}
    if groups:
        averages[GROUPS] = over_groups(list(by_group.values()), limits(metric))
    return averages | {TASKS: over_tasks([values.get(name, {}) for name in datasets], limits(metric))}


def rule(study: str, datasets: Sequence[str], groups: Mapping[str, Sequence[str]],
         rows: Sequence[GridRow], higher_is_better: bool) -> str:
    """How the averages are made, and whether the two name different winners; empty for one task."""
    if len(datasets) < 2:
        return ""
    text = f"{study}: the" if study else "The"
    text += (f" mean over tasks counts each of the {len(datasets)} data sets once, seed by seed; "
             "a technique without a complete cell on every one has none.")
    if groups:
        members = "; ".join(f"{group}: {', '.join(names)}" for group, names in groups.items())
        text += f" The mean over groups counts each group once ({members})."
        for backbone in dict.fromkeys(row.backbone for row in rows):
            by_tasks, by_groups = (
                _best([row for row in rows if row.backbone == backbone], column, higher_is_better)
                for column in (TASKS, GROUPS))
            if by_tasks != by_groups:
                text += (f" From {backbone} they disagree: best over tasks {by_tasks}, "
                         f"over groups {by_groups}.")
    return text + " Averages are not tested."


def _best(rows: Sequence[GridRow], column: str, higher_is_better: bool) -> str:
    sign = 1 if higher_is_better else -1
    means = {row.technique: sign * entry.summary.mean for row in rows
             if (entry := row.entries.get(column)) and math.isfinite(entry.summary.mean)}
    return max(means, key=lambda name: means[name]) if means else ""
