"""The columns that average over a study's data sets, and the rule that they follow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ftlab.reports.grid import TableBlock
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
    each = {group: [values.get(name, {}) for name in members] for group, members in groups.items()}
    found = {f"mean of {group}": over_tasks(tasks, limits(metric)) for group, tasks in each.items()}
    if groups:
        found[GROUPS] = over_groups(list(each.values()), limits(metric))
    return found | {TASKS: over_tasks([values.get(name, {}) for name in datasets], limits(metric))}


def rule(study: str, datasets: Sequence[str], groups: Mapping[str, Sequence[str]],
         blocks: Sequence[TableBlock], higher_is_better: bool) -> str:
    """How the averages are made, and whether the two name different winners; empty for one task."""
    if len(datasets) < 2:
        return ""
    text = f"{study}: the" if study else "The"
    text += (f" mean over tasks counts each of the {len(datasets)} data sets once, seed by seed; "
             "a technique without a complete cell on every one has none.")
    if groups:
        listed = "; ".join(f"{group}: {', '.join(members)}" for group, members in groups.items())
        text += f" The mean over groups counts each group once ({listed})."
        for block in blocks:
            first = [_best(block, column, higher_is_better) for column in (TASKS, GROUPS)]
            if first[0] != first[1]:
                text += (f" From {block.backbone} they disagree: best over tasks {first[0]}, "
                         f"over groups {first[1]}.")
    return text + " Averages are not tested."


def _best(block: TableBlock, column: str, higher_is_better: bool) -> str:
    sign = 1 if higher_is_better else -1
    found = {line.name: sign * entry.summary.mean for line in block.lines
             if (entry := line.entries.get(column)) and math.isfinite(entry.summary.mean)}
    return max(found, key=lambda name: found[name]) if found else ""
