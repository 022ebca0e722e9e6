"""A drift in words and tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from ftlab.reports.drift.metric_changes import MetricChange
from ftlab.reports.drift.rank_changes import tau_of
from ftlab.reports.drift.read_results import title
from ftlab.reports.formats import escape_markdown
from ftlab.reports.metric_text import digits
from ftlab.statistics.seed_summary import Summary
from ftlab.terminal import plain_text
from ftlab.tracking.metric_range import is_percent
from ftlab.wording import listed

if TYPE_CHECKING:
    from ftlab.reports.drift.compare import Drift

NONE = "-"
MOST = 12  # differing settings and the like on the terminal; files have all


def sentences(drift: Drift, most: int | None = None) -> list[str]:
    """The verdict first; `most` lines of suspects."""
    return [_verdict(drift), *_costs(drift), *_rankings(drift), *_one_sided(drift),
            *_suspects(drift, most), _note(drift)]


def rows(drift: Drift) -> list[dict[str, Any]]:
    """One row a cell and metric."""
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
    } for m in drift.movements]


def cost_rows(drift: Drift) -> list[dict[str, Any]]:
    """One row a cost beyond its tolerance, under the same columns."""
    return [{
        "backbone": c.names[0], "dataset": c.names[1], "technique": c.names[2],
        "metric": f"cost/{c.cost}", "old_mean": c.old, "new_mean": c.new,
        "difference": c.new - c.old, "test": f"median beyond a factor of {c.tolerance:g}",
        "verdict": "moved" if c.counted else "measured otherwise",
    } for c in drift.costs]


def terminal(drift: Drift) -> Group:
    """The tables and the sentences; `plain_text` keeps names from being read as markup."""
    parts: list[RenderableType] = []
    for metric, group in _tables(drift):
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0,
                      title=plain_text(_heading(metric, drift)), title_justify="left")
        for number, heading in enumerate(_headings()):
            table.add_column(plain_text(heading), justify="right" if 0 < number < 5 else "left")
        for where, members in group:
            if where:
                table.add_section()
                table.add_row(plain_text(where, style="italic"))
            for m, texts in members:
                style = "bold" if m.moved else ""
                table.add_row(*(plain_text(text, style=style) for text in texts))
        parts.append(table)
    return Group(*parts, *map(plain_text, sentences(drift, MOST)))


def markdown(drift: Drift) -> str:
    """GitHub's Markdown."""
    said = [escape_markdown(sentence) for sentence in sentences(drift)]
    found = [said[0], ""]
    for metric, group in _tables(drift):
        found += [f"**{escape_markdown(_heading(metric, drift))}**", "",
                  f"| {' | '.join(map(escape_markdown, _headings()))} |",
                  "| :--- | ---: | ---: | ---: | ---: | :--- |"]
        for where, members in group:
            if where:
                found.append(f"| *{escape_markdown(where)}* | | | | | |")
            for m, texts in members:
                cells = [escape_markdown(text) for text in texts]
                if m.moved:
                    cells[-1] = f"**{cells[-1]}**"
                found.append(f"| {' | '.join(cells)} |")
        found.append("")
    return "\n".join([*found, *(f"{sentence}\n" for sentence in said[1:])])


def _headings() -> tuple[str, ...]:
    return "technique", "old", "new", "change [95% CI]", "p Holm", "verdict"


def _heading(metric: str, drift: Drift) -> str:
    unit = ", %" if is_percent(metric) else ""
    counts = _counts([m for m in drift.movements if m.metric == metric])
    over = f" over {_count(counts.pop(), 'seed')}" if len(counts) == 1 else " (n)"
    return f"{metric}{unit}: mean ± std{over}"


def _counts(members: Iterable[MetricChange]) -> set[int]:
    return {n for m in members for n in (m.old.n, m.new.n)}


Lines = list[tuple[MetricChange, list[str]]]


def _tables(drift: Drift) -> Iterable[tuple[str, list[tuple[str, Lines]]]]:
    """By metric, groups with their title (empty where there is one) and lines."""
    for metric, found in groupby(drift.movements, key=lambda m: m.metric):
        members = list(found)
        number = digits(metric, [v for m in members for v in (m.old.mean, m.new.mean)])
        several = len(_counts(members)) > 1
        groups = [(f"{key[1]} from {key[0]}", [(m, _line(m, number, several)) for m in each])
                  for key, each in groupby(members, key=lambda m: m.names[:2])]
        yield metric, groups if len(groups) > 1 else [("", groups[0][1])]


def _line(m: MetricChange, number: Callable[[float], str], counts: bool) -> list[str]:
    def signed(value: float) -> str:
        return ("+" if value > 0 else "") + number(value)

    change = signed(m.difference) if math.isfinite(m.difference) else NONE
    if m.test is not None and not m.equal:
        change += f" [{signed(m.test.low)}, {signed(m.test.high)}]"
    means = [_mean(side, number, counts) for side in (m.old, m.new)]
    return [m.names[2], *means, change, _p(m.p), m.verdict]


def _mean(summary: Summary, number: Callable[[float], str], counts: bool) -> str:
    if not summary.n:
        return NONE
    spread = f" ± {number(summary.std)}" if math.isfinite(summary.std) else ""
    return f"{number(summary.mean)}{spread}" + (f" ({summary.n})" if counts else "")


def _p(p: float) -> str:
    if not math.isfinite(p):
        return NONE
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _verdict(drift: Drift) -> str:
    from_to = f"from {drift.old.label} to {drift.new.label}"
    tested = len(drift.movements) - len(drift.untested)
    gone = [m for m in drift.movements if m.moved]
    rest = f" {len(drift.untested)} with fewer than three seeds on a side could not be tested." \
        if drift.untested else ""
    if gone:
        names = _listed([f"{title(m.names)} ({m.metric})" for m in gone])
        verb = "has" if len(gone) == 1 else "have"
        return f"{len(gone)} of {_count(len(drift.movements), 'number')} {verb} moved {from_to}: {names}.{rest}"
    if drift.moved:
        return f"No metric moved beyond noise {from_to}, but costs that are counted did.{rest}"
    if drift.equal:
        return f"Nothing moved {from_to}: all numbers are equal, seed by seed."
    if not tested:
        return (f"Nothing could be tested {from_to}: with fewer than three seeds on a side a change "
                "cannot be told from the luck of the seed.")
    return f"Nothing moved beyond noise {from_to}.{rest}"


def _costs(drift: Drift) -> list[str]:
    """`checkpoint_bytes: lora x2.00, probe x1.30`, a sentence what is counted and what measured."""
    many = len({names[:2] for names in drift.old.cells}) > 1
    found = []
    for counted, begin in ((True, "Counted costs moved"),
                           (False, "Measured costs beyond their tolerance, which decide nothing")):
        changes = sorted((c for c in drift.costs if c.counted == counted), key=lambda c: c.cost)
        said = []
        for cost, each in groupby(changes, key=lambda c: c.cost):
            names = [f"{title(c.names) if many else c.names[2]} x{c.factor:.3g}" for c in each]
            said.append(f"{cost}: {_listed(names)}")
        if said:
            found.append(f"{begin}: {'; '.join(said)}.")
    return found


def _rankings(drift: Drift) -> list[str]:
    if not drift.orders:
        return []
    metric = drift.movements[0].metric
    tau = tau_of(drift.orders)
    over = f", mean over {len(drift.orders)} pairs of data set and backbone" \
        if len(drift.orders) > 1 else ""
    value = f"Kendall's tau {tau:.2f}" if math.isfinite(tau) else "no order, all are equal"
    found = f"Ranking by {metric}: {value}{over}; "
    swaps = [(order, swap) for order in drift.orders for swap in order.swaps]
    if not swaps:
        return [f"{found}no two techniques changed places."]
    real = [(order, swap) for order, swap in swaps if swap.significant]
    said = [f"{swap.first}/{swap.second}" + (f" on {order.group[1]} from {order.group[0]}"
            if len(drift.orders) > 1 else "") for order, swap in (real or swaps)]
    if not real:
        changed = f"{_count(len(swaps), 'pair')} changed places ({_listed(said)}), none significantly."
    else:
        changed = (f"{_count(len(swaps), 'pair')} changed places, {len(real)} of them significantly "
                   f"in both orders: {_listed(said)}.")
    return [found + changed]


def _one_sided(drift: Drift) -> list[str]:
    return [f"Only in {side.label}: {_listed([title(names) for names in cells])}."
            for side, cells in ((drift.old, drift.only_old), (drift.new, drift.only_new)) if cells]


def _suspects(drift: Drift, most: int | None) -> list[str]:
    found = []
    if drift.suspects:
        shown = list(drift.suspects[:most])
        left = len(drift.suspects) - len(shown)
        found.append("What differs in how they came about: " + "; ".join(shown)
                     + (f"; and {left} more (--out FILE.md has all)" if left else "") + ".")
    elif not drift.unknown:
        found.append("Both came about alike: data, weights, settings, versions, commit, device.")
    if drift.unknown:
        found.append(f"{'; '.join(drift.unknown)}.")
    return found


def _note(drift: Drift) -> str:
    kinds = dict.fromkeys(m.test.test for m in drift.movements if m.test)
    family = sum(m.test is not None for m in drift.movements)
    text = "Cells are matched by their names."
    if kinds:
        text += (f" {' or '.join(kinds)}".replace(" paired", " Paired", 1)
                 + f", Holm's correction over {_count(family, 'test')}, 5% chance of any false "
                 "claim; with few seeds only large changes can be told from noise.")
    return text


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _listed(names: Sequence[str]) -> str:
    shown = list(names[:6]) + ([f"{len(names) - 6} more"] if len(names) > 6 else [])
    return listed(shown)
