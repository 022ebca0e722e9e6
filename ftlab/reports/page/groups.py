"""Whom each technique fails: scores of groups of examples, and differences between them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import groupby
from typing import Any

import numpy as np

from ftlab.data.examples import COLUMN
from ftlab.data.groups import GROUP
from ftlab.reports.metric_text import digits
from ftlab.reports.page.markup import Markup, folded, join, table, tag
from ftlab.reports.study_results import StudyResults
from ftlab.statistics.clusters import CLUSTER, effective_size
from ftlab.statistics.group_differences import (
    demographic_parity_difference,
    equalized_odds_difference,
    wilson,
)
from ftlab.statistics.seed_summary import summarise
from ftlab.tasks.class_names import metric_keys, name_order
from ftlab.tasks.over_groups import GAP, OF_EACH, REWEIGHTED, WORST, of_which
from ftlab.tracking.metric_range import is_percent
from ftlab.tracking.records import CellKey

CALIBRATION = "calibration_error"
ABOUT = ("Means over finished seeds, with their standard deviation. The worst group is found for each seed by "
         "itself; the one that is named has the worst mean. The gap lies between best and worst group, "
         "and the reweighted mean weighs groups by their shares of the training examples.")
DIFFERENCES = (" Parity: the largest difference between two groups in how often a class is predicted; odds: the "
               "same among the examples of one true class; with 0 groups are treated alike. By chance alone both "
               "are above 0, and the worst of several groups is worse than the mean, the more so the smaller groups are.")


def groups(results: StudyResults) -> Markup:
    """A table a backbone and data set that has groups, and the score of each group, folded."""
    parts: list[Markup] = []
    differ = False
    for group, rows in groupby(results.rows, key=lambda row: row.group):
        keys = [row.key for row in rows]
        metric = of_which(results.metric, {m for key in keys for run in results.runs(key)
                                          for m in run.metrics})
        if metric is None:
            continue
        split = metric.partition("/")[0]
        read = {key: _Records(results, key, "validation" if split == "val" else split) for key in keys}
        lines = {key.technique: _line(results, key, metric, read[key]) for key in keys}
        headings = [name for name in next(iter(lines.values()))
                    if any(line[name] != "-" for line in lines.values())]
        differ |= "parity difference" in headings
        title = f"{group[1]} from {group[0]}" if len(results.groups) > 1 else ""
        parts.append(table(["technique", *headings], [[name, *(line[heading] for heading in headings)]
                                                      for name, line in lines.items()], title))
        parts.append(_each(results, keys, metric, read, title))
    if not parts:
        return Markup("")
    return join([*parts, tag("p", ABOUT + DIFFERENCES * differ, class_="about")])


class _Records:
    """Predictions of a cell's runs, by group: nothing where they are not classes.

    Attributes:
        counts: examples of each group.
        right: share that is right of each group, mean over seeds; empty where answers are not right
            or wrong.
        sizes: independent examples of each group that say as much, the fewest of all seeds.
        parity: demographic parity difference of each run.
        odds: equalized odds difference of each run.
    """

    def __init__(self, results: StudyResults, key: CellKey, split: str) -> None:
        self.counts: Counter[str] = Counter()
        self.right: dict[str, float] = {}
        self.sizes: dict[str, float] = {}
        self.parity: list[float] = []
        self.odds: list[float] = []
        task = results.tasks.get(key.dataset)
        shares: list[dict[str, float]] = []
        for run in results.runs(key) if task is not None else ():
            records = results.predictions(run, split)
            if task is None or records is None or COLUMN + GROUP not in records:
                continue
            values = sorted(set(records[COLUMN + GROUP]), key=name_order)
            keys = dict(zip(values, metric_keys(values), strict=True))  # as metrics name them
            names = np.asarray([keys[value] for value in records[COLUMN + GROUP]])
            self.counts = Counter(names.tolist())
            if (right := task.right(records)) is not None:
                shares.append({name: float(right[names == name].mean()) for name in self.counts})
                clusters = np.asarray(records.get(CLUSTER, range(len(names))))
                for name in self.counts:
                    size = effective_size(right[names == name], clusters[names == name].tolist())
                    self.sizes[name] = min(size, self.sizes.get(name, size))
            if task.one_class:
                self.parity.append(demographic_parity_difference(records["prediction"], names))
                self.odds.append(
                    equalized_odds_difference(records["target"], records["prediction"], names))
        if shares:
            self.right = {name: float(np.mean([seed[name] for seed in shares])) for name in shares[0]}


def _line(results: StudyResults, key: CellKey, metric: str, read: _Records) -> dict[str, str]:
    """A technique's row by heading; `-` for what was not measured."""
    split, _, name = metric.partition("/")
    each = _groups_of(results, key, metric)
    sign = -1 if results.direction(key.dataset, metric) is False else 1
    worst = min(each, key=lambda group: sign * each[group]) if each else ""

    def of(measure: str, values: list[float] | None = None) -> str:
        return _spread(results, measure,
                       list(results.values(key, measure).values()) if values is None else values)

    unit = " (%)" if is_percent(results.named(metric)) else ""
    return {
        f"{name}{unit}": of(metric),
        "worst group": f"{of(f'{split}/{WORST}{name}')}{f' ({worst})' if worst else ''}" if each else "-",
        "gap": of(f"{split}/{GAP}{name}"),
        "reweighted": of(f"{split}/{REWEIGHTED}{name}"),
        "worst calibration error": of(f"{split}/{WORST}{CALIBRATION}"),
        "parity difference": of(f"{split}/{GAP}{name}", read.parity),
        "odds difference": of(f"{split}/{GAP}{name}", read.odds),
    }


def _each(results: StudyResults, keys: list[CellKey], metric: str, read: Mapping[CellKey, _Records],
          title: str) -> Markup:
    """A line a group: its examples, and each technique's score with its interval over them."""
    scores = {key: _groups_of(results, key, metric) for key in keys}
    names = sorted({name for found in scores.values() for name in found}, key=name_order)
    counts = next((found.counts for found in read.values() if found.counts), Counter())
    write: Callable[[float], str] = digits(
        results.named(metric), [value for found in scores.values() for value in found.values()])

    def cell(key: CellKey, name: str) -> str:
        if name not in scores[key]:
            return "-"
        right = read[key].right.get(name)
        value = scores[key][name]
        if right is None or not math.isclose(right, value, abs_tol=1e-6):
            return write(value)  # of another metric, whose interval is not that of a share
        if not (size := read[key].sizes[name]):
            return write(value)  # of one cluster, which says nothing of others
        low, high = wilson(right, size)
        return f"{write(value)} [{write(low)}, {write(high)}]"

    lines = [[name, f"{counts[name]:,}" if counts else "-", *(cell(key, name) for key in keys)]
             for name in names]
    summary = f"Each of {len(names)} groups{f', {title}' if title else ''}"
    headings = ["group", f"{metric.partition('/')[0]} examples", *(key.technique for key in keys)]
    return folded(summary, table(headings, lines), tag("p", "In brackets the 95% interval over the group's examples (Wilson's), "
                      "or over its clusters, where there are two.", class_="about"))


def _groups_of(results: StudyResults, key: CellKey, metric: str) -> dict[str, float]:
    """Mean score of each group."""
    begins = f"{metric}{OF_EACH}/"
    measured = {m for run in results.runs(key) for m in run.metrics if m.startswith(begins)}
    return {m.removeprefix(begins): summarise(results.values(key, m).values()).mean for m in measured}


def _spread(results: StudyResults, metric: str, values: list[Any]) -> str:
    summary = summarise(values)
    if not math.isfinite(summary.mean):
        return "-"
    write = digits(results.named(metric), [summary.mean])
    return f"{write(summary.mean)} ± {write(summary.std)}" if summary.n > 1 else write(summary.mean)
