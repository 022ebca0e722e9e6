"""Megabytes that federated training sent, and after how many rounds it was good enough."""

from __future__ import annotations

import math
from itertools import groupby
from statistics import mean

from ftlab.reports.metric_text import digits
from ftlab.reports.page.markup import Markup, join, table, tag
from ftlab.reports.study_results import StudyResults
from ftlab.statistics.seed_summary import summarise
from ftlab.tracking.records import CellKey, RunRecord

SHARE = 0.95
"""Part of the baseline's validation score, or of the best technique's, that rounds are counted to."""
_SENT = "cost/bytes_up"
ABOUT = ("Means over finished seeds. Megabytes are all that all clients send, and as many come back. The gap is how far "
         "the mean of low-rank factors lies from the mean update in the last round, as a share of it. "
         "Runs that do not get that far are left out of the mean; in brackets is how many do.")


def federation(results: StudyResults, select_by: str) -> Markup:
    """A table for each backbone and data set with federated techniques.

    Args:
        results: compared.
        select_by: the validation metric that chooses epochs.
    """
    parts: list[Markup] = []
    for group, rows in groupby(results.rows, key=lambda row: row.group):
        keys = [row.key for row in rows]
        federated = [key for key in keys if results.values(key, _SENT)]
        reached = {key: _mean(results, key, select_by) for key in keys if results.values(key, select_by)}
        if not federated or not reached:
            continue
        upwards = results.upwards(select_by)
        base = next((key for key in reached if key.technique == results.baseline), None)
        best = base or (max if upwards else min)(reached, key=lambda key: reached[key])
        wanted = reached[best] * SHARE if upwards else reached[best] / SHARE
        if reached[best] <= 0:  # there is no share of it
            wanted = math.nan
        write = digits(results.named(select_by), [wanted])
        title = f"{group[1]} from {group[0]}" if len(results.groups) > 1 else ""
        lines = [[key.technique, f"{_mean(results, key, 'cost/rounds'):g}",
                  *(f"{_mean(results, key, f'cost/bytes_{way}') / 1e6:,.1f}" for way in ("up", "down")),
                  _gap(results, key), _rounds(results, key, select_by, wanted, upwards)]
                 for key in federated]
        parts.append(table(["technique", "rounds", "MB up", "MB down", "gap of factors",
                            f"rounds to {select_by} {write(wanted)}, {SHARE:.0%} of {best.technique}'s"],
                           lines, title))
    return join([*parts, tag("p", ABOUT, class_="about")]) if parts else Markup("")


def _mean(results: StudyResults, key: CellKey, metric: str) -> float:
    values = results.values(key, metric).values()
    return mean(values) if values else math.nan


def _gap(results: StudyResults, key: CellKey) -> str:
    gap = _mean(results, key, "cost/factor_gap")
    return "-" if math.isnan(gap) else f"{gap:.1%}"


def _rounds(results: StudyResults, key: CellKey, metric: str, wanted: float, upwards: bool) -> str:
    if math.isnan(wanted):
        return "-"
    found = [_first(results, run, metric, wanted, upwards) for run in results.runs(key)]
    there = [number for number in found if number is not None]
    if not there:
        return "none"
    summary = summarise(there)
    spread = f" ± {summary.std:.1f}" if summary.n > 1 else ""
    return f"{summary.mean:.1f}{spread}" + (f" ({len(there)} of {len(found)})" if len(there) < len(found) else "")


def _first(results: StudyResults, run: RunRecord, metric: str, wanted: float, upwards: bool) -> float | None:
    """The first round, from 1, whose weights have a validation score as good as wanted."""
    rounds = dict(results.history(run, "epoch"))
    return next((rounds[step] for step, value in results.history(run, metric) if step in rounds
                 and (value >= wanted if upwards else value <= wanted)), None)
