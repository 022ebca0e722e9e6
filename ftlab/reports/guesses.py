"""Scores of one who has learned nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

from ftlab.tracking.metric_facts import Unit


def most_frequent(targets: Sequence[Hashable]) -> tuple[str, float]:
    """The most frequent class, and its share: the accuracy of always naming it."""
    counts = Counter(targets)
    name, most = max(counts.items(), key=lambda item: (item[1], str(item[0])))
    return str(name), most / len(targets)


def without_learning(unit: Unit, higher_is_better: bool) -> float | None:
    """Score of any metric where no classes are counted: 0, or an error rate of 1.

    None where the unit does not say it, as of a loss. A guess may score more (AUROC 0.5).
    """
    if higher_is_better and unit in ("share", "fraction", "correlation", "at most one"):
        return 0.0
    return 1.0 if unit == "error rate" and not higher_is_better else None
