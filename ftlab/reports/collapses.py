"""Sentences on seeds that collapsed, and on those that did not by chance perhaps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby

from ftlab.reports.cell_summary import CellSummary
from ftlab.reports.table import group_title
from ftlab.statistics.collapse import not_excluded
from ftlab.wording import listed

RULE = ("A seed has collapsed that keeps less than half of what the best seed of its cell gains over "
        "guessing, and is ten points (a tenth) or more behind it. Guessing is always naming the most "
        "frequent class where the metric is a share of right classes, else a score of 0 (an error rate "
        "of 100%). Of losses and other numbers without a score for guessing nothing is said.")

Counts = Mapping[str, tuple[int, int]]
"""Collapsed seeds and all of them, by technique."""


def seen(counts: Counts) -> str:
    """`2 of 5 seeds of lora`, those that collapsed; empty for none."""
    texts = [f"{some} of {every} seeds of {name}" for name, (some, every) in counts.items() if some]
    return listed(texts) if texts else ""


def unseen(counts: Counts) -> str:
    """`3 seeds without a collapse (ia3, full) do not exclude one in 2`, beside cells with some."""
    clean: dict[int, list[str]] = {}
    for name, (some, every) in counts.items():
        if not some:
            clean.setdefault(every, []).append(name)
    texts = [f"{every} seed{'s' * (every > 1)} without a collapse ({', '.join(names)}) do"
             f"{'es' * (every == 1)} not exclude one in {_one_in(every)}"
             for every, names in sorted(clean.items())]
    return listed(texts) if texts else ""


def _one_in(seeds: int) -> int:
    """The most frequent collapse, one in so many, that is not excluded."""
    return math.ceil(1 / not_excluded(seeds))


def sentences(rows: Sequence[CellSummary]) -> str:
    """Collapses of each backbone and data set that has one; empty where none is known.

    Args:
        rows: those of a backbone and data set as neighbours.
    """
    texts = []
    groups = [(group, list(members)) for group, members in groupby(rows, lambda row: row.group)]
    for group, members in groups:
        counts = {row.key.technique: (row.collapsed, len(row.values)) for row in members
                  if row.collapsed is not None}
        if not (some := seen(counts)):
            continue
        where = f" on {group_title(group)}" if len(groups) > 1 else ""
        text = f"{some} collapsed{where} (less than half of its best seed's gain over guessing)"
        if clean := unseen(counts):
            text += f"; {clean}, so that no test on means is sure of how these compare"
        texts.append(f"{text}.")
    return " ".join(texts)
