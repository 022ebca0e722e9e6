"""Run until the answer: from what is known of each technique to verdicts, and what to run next.

All techniques that a still open comparison needs get the same number of seeds before it is looked
at again: a round. Verdicts are then a function of the scores alone: whoever runs the seeds, in
whatever order, on however many machines, and however often it is interrupted, comes to the same.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import stats

from ftlab.statistics import looks
from ftlab.statistics.evidence import Evidence
from ftlab.statistics.moderated import FEWEST_TECHNIQUES, SeedScores, evidence
from ftlab.statistics.multiple_testing import LEVEL, Pair
from ftlab.statistics.overlap import foreseen
from ftlab.statistics.paired import of_seeds, of_two
from ftlab.statistics.two_studies import step
from ftlab.statistics.verdict import Decision, Kind, Next, Rule, Verdict

HOPELESS = 0.05
"""Chance of a verdict by the last seed below which nothing more is spent on a comparison."""
FEWEST_TO_GIVE_UP = 5
"""Seeds before which no comparison is given up: of fewer the variance is hardly known."""
LIKELY = 0.8
"""Chance with which `more_seeds` are expected to tell."""
FURTHEST = 1000
"""Seeds beyond which nobody goes."""

@dataclass
class _Comparison:
    """A comparison's looks so far."""

    found: Evidence | None = None
    differs: dict[int, float] = field(default_factory=dict)
    equals: dict[int, float] = field(default_factory=dict)
    within: float = math.inf
    kind: Kind = "open"
    reason: str = ""


def decide(scores: Mapping[str, Mapping[int, SeedScores]], pairs: Sequence[Pair], rule: Rule,
           seconds: Mapping[str, float] | None = None, failed: Mapping[str, str] | None = None,
           beside: Sequence[Pair] = ()) -> Decision:
    """Look at a family of comparisons, round by round.

    A difference is claimed where the p-value of any look so far is within its nominal level for
    Holm's place, and else an equality likewise: two families of the same comparisons, each with 5%
    chance of any false claim.

    Args:
        scores: by technique and seed (0, 1, ...), each of one seed; the same examples for all.
        pairs: compared, one family.
        rule: when to stop.
        seconds: of a run, by technique.
        failed: techniques of which a run failed, and why: a seed that is left out would select.
        beside: pairs that are looked at along the way and ask for no runs, another family.
    """
    along = {pair: _Comparison() for pair in beside}
    compared = {pair: _Comparison() for pair in pairs}
    for pair, comparison in compared.items():
        if reasons := [f"{name}: {failed[name]}" for name in pair if failed and name in failed]:
            comparison.kind, comparison.reason = "failed", "; ".join(reasons)
    kept: dict[str, int] = {}  # seeds of each technique when it was last needed
    done, wanted = 0, []
    for seeds in range(rule.first, rule.most + 1):
        active = dict.fromkeys(name for pair, c in compared.items() if c.kind == "open" for name in pair)
        if missing := [(name, seed) for name in active for seed in range(seeds)
                       if seed not in scores.get(name, {})]:
            wanted = [run for run in _ordered(missing, compared, seeds, rule, seconds or {}, active)
                      if run.seed not in scores.get(run.technique, {})]
            break
        if not active:
            break
        kept |= dict.fromkeys(active, seeds)
        tables = {name: stacked(scores[name], count) for name, count in kept.items()}
        resolution = step(value for table in tables.values() for value in table.values)
        open_pairs = [pair for pair, c in compared.items() if c.kind == "open"]
        for pair, found in compare(tables, open_pairs, resolution, rule.overlap).items():
            _look(compared[pair], found, rule, len(pairs))
        _claim(compared, rule)
        together = [pair for pair in beside if all(kept.get(name) == seeds for name in pair)]
        for pair, found in compare(tables, together, resolution, rule.overlap).items():
            _look(along[pair], found, rule, len(beside))
        done = seeds
        for comparison in compared.values():
            if comparison.kind == "open" and _hopeless(comparison, seeds, rule, _places(compared)):
                lacking = _examples(comparison, rule, _places(compared))
                comparison.kind = "undecidable" if lacking else "undecided"
    return Decision({pair: _verdict(c, rule, _places(compared), len(pairs))
                     for pair, c in compared.items()}, done, kept, wanted,
                    {pair: _verdict(c, rule, LEVEL / len(beside), len(beside))
                     for pair, c in along.items() if c.found is not None})


def stacked(scores: Mapping[int, SeedScores], seeds: int) -> SeedScores:
    """One technique's scores of its first seeds as one table."""
    rows = [scores[seed] for seed in range(seeds)]
    values = np.concatenate([row.values for row in rows])
    examples = [row.examples for row in rows if row.examples is not None]
    return SeedScores(values, np.concatenate(examples) if len(examples) == len(rows) else None,
                      max((row.clustered for row in rows), default=0))


def compare(study: Mapping[str, SeedScores], pairs: Sequence[Pair],
            resolution: float, overlap: float = 0.0) -> dict[Pair, Evidence]:
    """Evidence on each pair: moderated for three and more techniques, of the two alone else.

    Args:
        study: all techniques of a backbone and data set, of at least two seeds each.
        pairs: to be compared; of unequal numbers of seeds the common first ones count.
        resolution: see `moderated.variance`.
        overlap: see `overlap.inflation`.
    """

    def of_pair(a: str, b: str) -> Evidence:
        seeds = min(len(study[a]), len(study[b]))
        one, other = study[a].first(seeds), study[b].first(seeds)
        if one.examples is None or other.examples is None:
            return of_seeds(one.values.tolist(), other.values.tolist(), resolution, overlap)
        return of_two(one.examples - other.examples,
                      float(one.values.mean() - other.values.mean()), overlap)

    found = evidence(study, pairs, resolution, overlap) if len(study) >= FEWEST_TECHNIQUES else \
        {pair: of_pair(*pair) for pair in pairs}
    return {pair: each.of_clusters(study[pair[0]].clustered) for pair, each in found.items()}


def _look(comparison: _Comparison, found: Evidence, rule: Rule, family: int) -> None:
    comparison.found = found
    comparison.differs[found.seeds] = found.p_differs
    comparison.equals[found.seeds] = found.p_equal(rule.margin)
    level = looks.nominal(LEVEL / family, found.seeds, rule.most)
    comparison.within = min(comparison.within, found.equal_within(level))


def _claim(compared: Mapping[Pair, _Comparison], rule: Rule) -> None:
    """Holm's step-down over differences, then over equalities, until nothing is new."""
    for kind in ("different", "equal"):
        while True:
            claimed = sum(c.kind == kind for c in compared.values())
            level = LEVEL / max(1, len(compared) - claimed)
            new = [c for c in compared.values() if c.kind not in ("different", "equal", "failed")
                   and looks.anytime(c.differs if kind == "different" else c.equals, rule.most)
                   <= level]
            for comparison in new:
                comparison.kind = kind
            if not new:
                break


def _places(compared: Mapping[Pair, _Comparison]) -> float:
    """The stricter of the two levels at which Holm looks at what is left."""
    claimed = min(sum(c.kind == kind for c in compared.values()) for kind in ("different", "equal"))
    return LEVEL / max(1, len(compared) - claimed)


def _hopeless(comparison: _Comparison, seeds: int, rule: Rule, level: float) -> bool:
    """True where no seeds are left, or a verdict with those that are left is unlikely.

    The mean at the end is foretold from that of today (its posterior under a flat prior). Giving
    up claims nothing, so that it costs power and no error.
    """
    if seeds >= rule.most:
        return True
    if seeds < FEWEST_TO_GIVE_UP or (found := comparison.found) is None:
        return False
    last = looks.nominal(level, rule.most, rule.most)
    by_seeds = foreseen(found.by_seeds, seeds, rule.most, rule.overlap)
    end = math.sqrt(by_seeds + found.by_examples)
    far = float(stats.t.isf(last / 2, rule.most - 1)) * end
    near = max(0.0, rule.margin - float(stats.t.isf(last, rule.most - 1)) * end)
    scatter = math.sqrt(max(0.0, found.by_seeds - by_seeds)) + 1e-12

    def below(limit: float) -> float:
        return float(stats.t.cdf((limit - found.difference) / scatter, found.freedom))

    return 1 - below(far) + below(-far) + below(near) - below(-near) < HOPELESS


def _examples(comparison: _Comparison, rule: Rule, level: float) -> int | None:
    """Test examples with which a difference of the margin could be told from none; None for these."""
    if (found := comparison.found) is None or not found.examples:
        return None
    share = float(stats.norm.isf(level / 2)) ** 2 * found.by_examples / rule.margin**2
    return math.ceil(share * found.examples) if share > 1 else None


def _verdict(comparison: _Comparison, rule: Rule, level: float, family: int) -> Verdict:
    found, kind = comparison.found, comparison.kind
    if found is None:
        return Verdict(kind, None, rule.margin, reason=comparison.reason)
    verdict = Verdict(
        kind, found, rule.margin, looks.anytime(comparison.differs, rule.most),
        looks.anytime(comparison.equals, rule.most), comparison.within,
        found.interval(looks.nominal(LEVEL / family, found.seeds, rule.most)),
        reason=comparison.reason, last=found.seeds >= rule.most)
    if verdict.resolved or kind == "failed":
        return verdict
    return replace(verdict, more_seeds=_more_seeds(found, rule, level),
                   examples=_examples(comparison, rule, level))


def _more_seeds(found: Evidence, rule: Rule, level: float) -> int | None:
    """Seeds beyond those there are with which a verdict is likely, were the difference what it seems."""
    likely, distance = float(stats.norm.ppf(LIKELY)), abs(found.difference)

    def tells(seeds: int) -> bool:
        most = max(seeds, rule.most)
        last = level if most > looks.MOST else looks.nominal(level, seeds, most)
        by_seeds = foreseen(found.by_seeds, found.seeds, seeds, rule.overlap)
        error, scatter = math.sqrt(by_seeds + found.by_examples), likely * math.sqrt(by_seeds)
        far, near = (float(stats.t.isf(p, seeds - 1)) * error + scatter for p in (last / 2, last))
        return distance >= far or rule.margin - distance >= near

    counts = range(found.seeds + 1, FURTHEST + 1)  # the more seeds, the more they tell
    place = bisect_left(counts, True, key=tells)
    return counts[place] - found.seeds if place < len(counts) else None


def _ordered(missing: Collection[tuple[str, int]], compared: Mapping[Pair, _Comparison], seeds: int,
             rule: Rule, seconds: Mapping[str, float], active: Iterable[str]) -> list[Next]:
    """The missing runs of a round, the most variance removed a second first; then the next round's."""
    gains = dict.fromkeys(active, 0.0)
    for pair, comparison in compared.items():
        if comparison.kind == "open" and (found := comparison.found) is not None:
            less = found.by_seeds / seeds / max(found.error**2, 1e-18)
            for name in pair:
                gains[name] += less / sum(seconds.get(other, 1.0) for other in pair)
    runs = [Next(name, seed, gains[name]) for name, seed in missing]
    runs.sort(key=lambda run: (-run.gain, run.seed))
    if seeds < rule.most:
        later = [Next(name, seeds, gain, early=True) for name, gain in gains.items()]
        runs += sorted(later, key=lambda run: -run.gain)
    return runs
