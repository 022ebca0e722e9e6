"""Tables of a drift: one per metric, a line per cell."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from ftlab.reports.drift.costs import CostChange
from ftlab.reports.drift.metric_changes import MetricChange
from ftlab.reports.metric_text import digits
from ftlab.reports.table import NONE, Column, Table, group_title, tabulate
from ftlab.statistics.seed_summary import Summary
from ftlab.tracking.metric_range import is_percent

_VERDICT = 5  # its column


def rows(changes: Sequence[MetricChange]) -> list[dict[str, Any]]:
    """One row per cell and metric, as numbers."""
    return [{
        "backbone": m.names[0], "dataset": m.names[1], "technique": m.names[2], "metric": m.metric,
        "old_mean": m.old.mean, "old_std": m.old.std, "old_n": m.old.n,
        "new_mean": m.new.mean, "new_std": m.new.std, "new_n": m.new.n,
        "difference": m.difference,
        "ci_low": m.test.low if m.test else math.nan,
        "ci_high": m.test.high if m.test else math.nan,
        "effect": m.test.effect if m.test else math.nan,
        "test": m.test.test if m.test else "",
        "p": m.test.p if m.test else math.nan,
        "p_holm": m.p, "verdict": m.verdict,
    } for m in changes]


def cost_rows(changes: Sequence[CostChange]) -> list[dict[str, Any]]:
    """One row per cost beyond its tolerance, under the same columns."""
    return [{
        "backbone": c.names[0], "dataset": c.names[1], "technique": c.names[2],
        "metric": f"cost/{c.cost}", "old_mean": c.old, "new_mean": c.new,
        "difference": c.new - c.old, "test": f"median beyond a factor of {c.tolerance:g}",
        "verdict": "moved" if c.counted else "measured otherwise",
    } for c in changes]


def tables(changes: Sequence[MetricChange]) -> list[Table]:
    """One per metric; its caption names metric and number of seeds."""
    return [_table(metric, list(members))
            for metric, members in groupby(changes, key=lambda m: m.metric)]


def _table(metric: str, changes: Sequence[MetricChange]) -> Table:
    number = digits(metric, [value for m in changes for value in (m.old.mean, m.new.mean)])
    counts = {n for m in changes for n in (m.old.n, m.new.n)}
    several = len(counts) > 1
    unit = ", %" if is_percent(metric) else ""
    over = " (n)" if several else f" over {count_of(counts.pop(), 'seed')}"
    return tabulate(
        changes,
        (Column("old", lambda m: _mean(m.old, number, several)),
         Column("new", lambda m: _mean(m.new, number, several)),
         Column("change [95% CI]", lambda m: _change(m, number)),
         Column("p Holm", lambda m: _p(m.p)),
         Column[MetricChange]("verdict", lambda m: m.verdict, lambda m: m.moved)),
        name=lambda m: m.names[2], title=lambda m: group_title(m.names[:2]),
        caption=f"{metric}{unit}: mean ± std{over}", words=frozenset({0, _VERDICT}))


def _change(m: MetricChange, number: Callable[[float], str]) -> str:
    def signed(value: float) -> str:
        return ("+" if value > 0 else "") + number(value)

    change = signed(m.difference) if math.isfinite(m.difference) else NONE
    if m.test is not None and not m.equal:
        change += f" [{signed(m.test.low)}, {signed(m.test.high)}]"
    return change


def _mean(summary: Summary, number: Callable[[float], str], counts: bool) -> str:
    if not summary.n:
        return NONE
    spread = f" ± {number(summary.std)}" if math.isfinite(summary.std) else ""
    return f"{number(summary.mean)}{spread}" + (f" ({summary.n})" if counts else "")


def _p(p: float) -> str:
    if not math.isfinite(p):
        return NONE
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def count_of(number: int, noun: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
