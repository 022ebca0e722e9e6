"""Verdicts on comparisons, and the runs that would say more."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from scipy import stats

from ftlab.statistics.evidence import Evidence
from ftlab.statistics.multiple_testing import LEVEL, Pair

LIKELY = 0.9
"""Chance with which two identical techniques are shown to be equal within the smallest margin."""

Kind = Literal["different", "equal", "open", "undecided", "undecidable", "failed"]
"""`undecided` with all seeds that there may be, or because no verdict is likely by then;
`undecidable` where no number of seeds would tell on this test set."""


@dataclass(frozen=True)
class Rule:
    """When to stop.

    Attributes:
        margin: below which a difference does not matter, in the metric's own unit.
        first: seeds before the first look.
        most: seeds of a technique at most.
        overlap: of the seeds' training sets, see `overlap.inflation`; 0 where all train on the same.
    """

    margin: float
    first: int
    most: int
    overlap: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """Answer to one comparison.

    Attributes:
        kind: of the answer; `different` says by the sign of `evidence.difference` in which way.
        evidence: at the last look; None before the first.
        p_differs, p_equal: that hold whenever one stops, of no difference and of the margin.
        margin: of the rule.
        equal_within: the smallest margin within which the two are shown to be equal, by any look.
        interval: that holds whenever one stops, at the level of the comparison's place.
        more_seeds: beyond those it has with which a verdict is expected; None where that is known
            of no number, or not asked.
        examples: of the test set with which a verdict is possible (clusters, where it has some); None likewise.
        reason: of a failure.
        last: whether no seeds are left.
    """

    kind: Kind
    evidence: Evidence | None
    margin: float
    p_differs: float = 1.0
    p_equal: float = 1.0
    equal_within: float = math.inf
    interval: tuple[float, float] = (-math.inf, math.inf)
    more_seeds: int | None = None
    examples: int | None = None
    reason: str = ""
    last: bool = False

    @property
    def resolved(self) -> bool:
        """True where the question is answered."""
        return self.kind in ("different", "equal")


@dataclass(frozen=True)
class Next:
    """A run that a decision waits for.

    Attributes:
        technique, seed: which.
        gain: of the variance of open comparisons, the share that it removes a second.
        early: whether it belongs to the round after this one.
    """

    technique: str
    seed: int
    gain: float
    early: bool = False


@dataclass(frozen=True)
class Decision:
    """Verdicts on what is known, and the runs that would say more.

    Attributes:
        verdicts: of each comparison.
        seeds: of the last complete round; 0 before the first.
        used: seeds of each technique that the verdicts stand on, the first ones.
        wanted: runs, the most telling first; none where all is decided.
        beside: what was seen along the way of pairs that nobody asked about.
    """

    verdicts: Mapping[Pair, Verdict]
    seeds: int = 0
    used: Mapping[str, int] = field(default_factory=dict)
    wanted: Sequence[Next] = ()
    beside: Mapping[Pair, Verdict] = field(default_factory=dict)

    @property
    def open(self) -> list[Pair]:
        """Comparisons that wait for more runs."""
        return [pair for pair, verdict in self.verdicts.items() if verdict.kind == "open"]


def smallest_margin(by_examples: float, family: int) -> float:
    """Smallest margin within which identical techniques are likely shown equal by any number of seeds.

    Args:
        by_examples: variance of a difference through the test examples.
        family: comparisons in it.
    """
    reach = stats.norm.isf(LEVEL / max(1, family)) + stats.norm.ppf(LIKELY)
    return float(reach) * math.sqrt(by_examples)


def to_come(decision: Decision, rule: Rule, seconds: Mapping[str, float]) -> float:
    """Seconds of runs, one after another, that the open comparisons are expected to take."""
    more: dict[str, int] = {}
    for pair in decision.open:
        verdict = decision.verdicts[pair]
        left = rule.most - decision.seeds
        expected = left if verdict.more_seeds is None else min(left, verdict.more_seeds)
        for name in pair:
            more[name] = max(more.get(name, 0), expected)
    mean = sum(seconds.values()) / len(seconds) if seconds else 0.0
    return sum(count * seconds.get(name, mean) for name, count in more.items())
