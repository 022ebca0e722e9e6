"""The budget curve of a sweep as a table, and whether the ranking depends on the budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby, pairwise
from typing import Any

from ftlab.reports.metric_text import digits
from ftlab.reports.table import NONE, Column, Table, group_title, tabulate
from ftlab.reports.trial_scores import CellTrials
from ftlab.tracking.metric_range import is_percent

_RANKINGS = 4  # written out in full; beyond that the first and the last


def columns(rows: Sequence[CellTrials]) -> list[int]:
    """Numbers of trials that the table shows: 1, 2, 4, ... and the most that a cell has had."""
    most = max((len(row.curve) for row in rows), default=0)
    powers = [2**exponent for exponent in range(most.bit_length()) if 2**exponent < most]
    return [*powers, most] if most else []


def layout(title: str, rows: Sequence[CellTrials], higher_is_better: bool) -> Table:
    """The table: expected best score after k trials, with its band in brackets.

    Args:
        title: what was done, the caption's first sentence.
        rows: of all cells.
        higher_is_better: of the first objective.
    """
    metric, ks = rows[0].objectives[0], columns(rows)
    scores = [best.expected for row in rows for best in row.curve]
    scores += [row.first_score for row in rows if row.first_score is not None]
    number = digits(metric, scores)

    def text(value: float) -> str:
        return number(value) if math.isfinite(value) else NONE

    def after(k: int) -> Callable[[CellTrials], str]:
        def written(row: CellTrials) -> str:
            best = row.after(k)
            if best is None or not math.isfinite(best.expected):
                return NONE
            if not (math.isfinite(best.low) or math.isfinite(best.high)):
                return text(best.expected)
            return f"{text(best.expected)} [{text(best.low)}, {text(best.high)}]"

        return written

    unit = ", %" if is_percent(metric) else ""
    heads = [f"best {metric}{unit} after k = {k}" if n == 0 else f"k = {k}"
             for n, k in enumerate(ks)]
    return tabulate(
        rows,
        [Column("trials", lambda row: str(len(row.ended))),
         Column("own setting",
                lambda row: NONE if row.first_score is None else number(row.first_score)),
         *(Column(head, after(k)) for head, k in zip(heads, ks, strict=True))],
        name=lambda row: row.key.technique, title=lambda row: group_title(row.group),
        notes=lambda row: (f"{row.key.title}: {note(row)}",) if note(row) else (),
        caption=_caption(title, rows, metric, higher_is_better))


def _caption(title: str, rows: Sequence[CellTrials], metric: str, higher_is_better: bool) -> str:
    best = "highest" if higher_is_better else "lowest"
    text = (
        f"{title} Expected {best} {metric} of the first k trials, over all orders of the trials "
        f"(exact). {bands(rows)} Samplers that learn from earlier trials do better than a random order."
    )
    if any(row.count("PRUNED") for row in rows):
        text += (" A pruned trial counts with the best that it had reached, less than it might "
                 "have become.")
    if any(row.count("FAIL") for row in rows):
        text += (" A failed trial spends its budget and gives nothing, which is worse than any "
                 f"score: {NONE} where all k trials could be failed ones.")
    return text


def bands(rows: Sequence[CellTrials]) -> str:
    """The meaning of the curves' bands, or the reason why there are none; no band is of test scores."""
    kinds = {row.band for row in rows if row.ended and not row.settled}
    texts = {
        "searches": "Mean over the searches; the band goes from the lowest to the highest of them.",
        "random": ("The band has the expected best of k random trials, for all k at once, in at least 95 "
                   "of 100 sweeps (Kolmogorov's band around the scores of the trials that were drawn, "
                   "within the metric's range); it is not of other seeds or data."),
        "pruned": "Where trials were pruned, by comparison with others, a curve has no band.",
        "sampler": ("A curve has no band where its trials are no random sample (the sampler learns from "
                    "earlier ones, or was not recorded): searches: 3 in the sweep shows what another "
                    "search would find."),
    }
    return " ".join(text for kind, text in texts.items() if kind in kinds)


def note(row: CellTrials) -> str:
    """A footnote on a cell's trials; empty where all completed."""
    counts = ((row.count("PRUNED"), "pruned"), (row.count("FAIL"), "failed"),
              (row.running, "not ended"))
    parts = [f"{count} {word}" for count, word in counts if count]
    if row.settled:
        parts.append("nothing to search, one trial stands for any number")
    return ", ".join(parts) if row.ended or row.running else "not tried"


def lines(rows: Sequence[CellTrials]) -> list[dict[str, Any]]:
    """The table as numbers in base units; what no trial has reached is empty."""
    return [
        {
            "backbone": row.key.backbone, "dataset": row.key.dataset,
            "technique": row.key.technique, "metric": row.objectives[0],
            "trials": len(row.ended), "complete": row.count("COMPLETE"),
            "pruned": row.count("PRUNED"), "failed": row.count("FAIL"),
            "own": "" if row.first_score is None else row.first_score,
        }
        | {name: value for k in columns(rows) for name, value in _numbers(row, k).items()}
        for row in rows
    ]


def _numbers(row: CellTrials, k: int) -> dict[str, float | str]:
    best = row.after(k)
    values = {f"k={k}": best.expected, f"k={k} low": best.low, f"k={k} high": best.high} if best \
        else dict.fromkeys((f"k={k}", f"k={k} low", f"k={k} high"), math.inf)
    return {name: value if math.isfinite(value) else "" for name, value in values.items()}


def ranking(rows: Sequence[CellTrials], higher_is_better: bool) -> list[str]:
    """One sentence a group: whether the order of the techniques depends on the budget.

    It compares expectations after as many trials as every technique of the group has had. One
    that never gave a score is left out, and so is a group with fewer than two techniques.
    """
    groups = [list(members) for _, members in groupby(rows, key=lambda row: row.group)]
    sentences = []
    for members in groups:
        compared = [row for row in members if row.scored]
        spent = [len(row.curve) for row in compared if not row.settled]
        if len(compared) < 2 or not spent:
            continue
        where = f" on {members[0].key.dataset} from {members[0].key.backbone}"
        sentences.append(_sentence(compared, min(spent), higher_is_better,
                              where if len(groups) > 1 else ""))
    return sentences


def _sentence(rows: Sequence[CellTrials], most: int, higher_is_better: bool, where: str) -> str:
    orders = [_order(rows, k, higher_is_better) for k in range(1, most + 1)]
    steps = [k for k in range(2, most + 1) if orders[k - 1] != orders[k - 2]]
    begin = f"The ranking of the techniques{where} by expected best {rows[0].objectives[0]}"
    if most == 1:
        return f"{begin} after 1 trial: {orders[0]}."
    if not steps:
        return f"{begin} is the same after any number of trials from 1 to {most}: {orders[0]}."
    shown = [1, *steps] if len(steps) < _RANKINGS else [1, most]
    rankings = "; ".join(f"after {k} trial{'s' * (k > 1)} {orders[k - 1]}" for k in shown)
    return f"{begin} changes at k = {', '.join(map(str, steps))}: {rankings}."


def _order(rows: Sequence[CellTrials], k: int, higher_is_better: bool) -> str:
    """`lora > full = probe`; those whose trials may all have failed stand apart, behind."""
    sign = 1.0 if higher_is_better else -1.0
    scores = [(sign * best.expected, row.key.technique)
             for row in rows if (best := row.after(k)) is not None]
    sure = [pair for pair in scores if math.isfinite(pair[0])]
    sure.sort(key=lambda pair: -pair[0])  # stable: equals keep the study's order
    text = "".join(name for _, name in sure[:1])
    for (above, _), (value, name) in pairwise(sure):
        # Expectations are sums of products: what differs in the last digits is equal.
        text += f"{' = ' if math.isclose(above, value, rel_tol=1e-9) else ' > '}{name}"
    unsure = ", ".join(name for value, name in scores if not math.isfinite(value))
    return " ".join(filter(None, (text, unsure and f"(without a sure score: {unsure})")))
