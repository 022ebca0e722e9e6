"""Facts about a study's metrics, as the store holds them with each cell."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

Unit = Literal["share", "fraction", "error rate", "correlation", "at most one", "non-negative",
               "points", "free"]
"""Kind of a metric's numbers.

A share and a fraction lie between 0 and 1, and a share is shown in percent; so is an error rate,
which has no upper end, since more words may be wrong than there are. A correlation lies between
-1 and 1. Points are differences of what is shown in percent.
"""

PERCENT: tuple[Unit, ...] = ("share", "error rate", "points")
LIMITS: dict[Unit, tuple[float, float]] = {
    "share": (0.0, 1.0), "fraction": (0.0, 1.0), "error rate": (0.0, math.inf),
    "correlation": (-1.0, 1.0), "at most one": (-math.inf, 1.0), "non-negative": (0.0, math.inf),
    "points": (-math.inf, math.inf), "free": (-math.inf, math.inf)}

SPLIT = re.compile(r"^(test(\.[^/]+)?|val|train)/")
"""Begins the name of a metric: its split, or its named test set."""
PER_CLASS = "/<class>"
"""End of the name of a metric that has a value per class: `f1/<class>`."""


@dataclass(frozen=True)
class MetricFacts:
    """Direction of a metric, and the kind of its numbers."""

    higher_is_better: bool
    unit: Unit


class MetricName(str):
    """Name of a metric as reports pass it on, with the facts that its record states."""

    facts: MetricFacts


Record = Mapping[str, MetricFacts]
"""Facts by name without split prefix; empty for cells of stores that earlier versions wrote."""


TAG = "ftlab.metrics"
"""Tag of a cell, and of the search of one, that holds its record; a long one goes on in `.1`, `.2`."""


def lookup(metric: str, record: Record) -> MetricFacts | None:
    """Facts about a metric, `test/f1/sport` for instance; None where the record has none."""
    name = SPLIT.sub("", metric)
    family, slash, _ = name.partition("/")
    return record.get(name) or (record.get(f"{family}{PER_CLASS}") if slash else None)


def named(metric: str, record: Record) -> str:
    """The name with its facts; as it is where the record has none."""
    facts = lookup(metric, record)
    if facts is None:
        return metric
    name = MetricName(metric)
    name.facts = facts
    return name


def to_tag(record: Record) -> str:
    """Record as the text of a tag; empty for an empty one."""
    facts = {name: [entry.higher_is_better, entry.unit] for name, entry in record.items()}
    return json.dumps(facts, separators=(",", ":")) if facts else ""


@lru_cache  # the cells of a study have few records
def from_tag(text: str) -> Record:
    """Record from the text of tags; empty where it is not one of `to_tag`'s.

    Behind it may be the end of an earlier, longer one.
    """
    try:
        facts = {name: MetricFacts(higher, unit) for name, (higher, unit)
                 in json.JSONDecoder().raw_decode(text or "{}")[0].items()}
    except (ValueError, TypeError, AttributeError):  # somebody edited it, or another program
        return {}
    valid = all(isinstance(entry.higher_is_better, bool) and entry.unit in get_args(Unit)
                for entry in facts.values())
    return facts if valid else {}
