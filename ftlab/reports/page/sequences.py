"""Scores of each technique over a sequence of tasks: those in the end, and after each task."""

from __future__ import annotations

import math
import re
from itertools import groupby

from ftlab.reports.metric_text import digits
from ftlab.reports.page.markup import Markup, folded, join, table, tag
from ftlab.reports.study_results import StudyResults
from ftlab.statistics.seed_summary import summarise
from ftlab.tasks.over_groups import OF_EACH, of_which
from ftlab.tasks.over_sequence import BACKWARD, FINAL, FORGETTING, FORWARD, bare
from ftlab.tracking.metric_range import is_percent
from ftlab.tracking.records import CellKey

_AFTER = re.compile(r"test\.after-(\d+)-([^/]+)/")
_COLUMNS = {"ACC": FINAL, "BWT": BACKWARD, "FWT": FORWARD, "forgetting": FORGETTING}
ABOUT = ("Means over finished seeds, with their standard deviation. ACC is the mean score of all tasks after the last "
         "fit; BWT the mean change of each earlier task since its own fit; FWT the mean score of each later task "
         "before its fit, above that of the network before any; forgetting the mean loss of each earlier task against "
         "its best. In the matrices a line is a moment of the sequence, and a column the test examples of a task.")


def sequences(results: StudyResults) -> Markup:
    """A table a backbone and data set on which tasks were learned in turn, and a matrix a technique, folded."""
    parts: list[Markup] = []
    for group, rows in groupby(results.rows, key=lambda row: row.group):
        keys = [row.key for row in rows]
        measured = {m for key in keys for run in results.runs(key) for m in run.metrics}
        metric = of_which(f"test/{bare(results.metric.partition('/')[2])}", measured)
        name = "" if metric is None else metric.partition("/")[2]
        keys = [key for key in keys if results.values(key, f"test/{BACKWARD}{name}")]
        if not keys:
            continue
        title = f"{group[1]} from {group[0]}" if len(results.groups) > 1 else ""
        unit = " (%)" if is_percent(results.named(f"test/{name}")) else ""
        lines = [[key.technique, *(_spread(results, key, f"test/{begins}{name}")
                                   for begins in _COLUMNS.values())] for key in keys]
        parts.append(table(["technique", *(f"{heading}{unit}" for heading in _COLUMNS)], lines, title))
        matrices = [_matrix(results, key, name, unit) for key in keys]
        parts.append(folded(f"The matrix of each technique{f', {title}' if title else ''}", join(matrices)))
    return join([*parts, tag("p", ABOUT, class_="about")]) if parts else Markup("")


def _matrix(results: StudyResults, key: CellKey, name: str, unit: str) -> Markup:
    """The score of each task, before any fit and after each."""
    measured = sorted({m for run in results.runs(key) for m in run.metrics})
    after = dict(sorted({(int(found[1]), found[2]) for m in measured if (found := _AFTER.match(m))}))
    begins = f"test/{name}{OF_EACH}/"
    last = [m.removeprefix(begins) for m in measured
            if m.startswith(begins) and m.removeprefix(begins) not in after.values()]
    tasks = [*after.values(), *last]
    moments = {"before any": "test.before", **{f"after {task}": f"test.after-{number}-{task}"
                                               for number, task in after.items()},
               **{f"after {task}": "test" for task in last}}
    lines = [[moment, *(_spread(results, key, f"{split}/{name}{OF_EACH}/{task}") for task in tasks)]
             for moment, split in moments.items()]
    return table([f"{name}{unit}", *tasks], lines, key.technique)


def _spread(results: StudyResults, key: CellKey, metric: str) -> str:
    summary = summarise(results.values(key, metric).values())
    if not math.isfinite(summary.mean):
        return "-"
    write = digits(results.named(metric), [summary.mean])
    return f"{write(summary.mean)} ± {write(summary.std)}" if summary.n > 1 else write(summary.mean)
