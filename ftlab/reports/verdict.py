"""What the tests allow to say, as sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ftlab.reports.comparison import Compared, Comparison
from ftlab.reports.metric_text import digits, is_percent
from ftlab.reports.statistics.ranks import Ranked, rank


def bold(comparisons: Sequence[Comparison], higher_is_better: bool) -> str:
    """What is in bold, and by which test, family, correction and n."""
    best = f"The best{'' if higher_is_better else ' (lowest)'} mean of its backbone and data set"
    decided = [pair.decides for comparison in comparisons for pair in comparison.pairs.values()
               if pair.decides is not None]
    if not decided:
        return f"{best}; nothing was tested."
    tests = list(dict.fromkeys(test.test for test in decided))
    text = f"{best}, and all that are not significantly worse: {' or '.join(tests)}"
    for name, counts in (("seeds", {test.seeds for test in decided}),
                         ("examples", {test.examples for test in decided if test.examples})):
        if counts:
            text += f", n = {ranged(counts)} {name}"
    families = {len(comparison.pairs) for comparison in comparisons if comparison.tested}
    many = "pair" if families == {1} else "pairs"
    text += (f", Holm's correction over the {ranged(families)} {many} of techniques, "
             "5% chance of any false claim.")
    untested = sum(pair.decides is None for comparison in comparisons
                   for pair in comparison.pairs.values())
    if untested:
        text += f" {untested} pairs have no two seeds and no predictions in common: untested."
    if any(test.seeds == 1 for test in decided):
        text += " With one seed it is these trained models that are compared, not the techniques."
    return text


def ties(comparisons: Sequence[Comparison]) -> str:
    """Which techniques share the best mean, exactly; empty where none do."""
    said = []
    for comparison in comparisons:
        first = [name for name, mean in comparison.means.items()
                 if mean == comparison.means[comparison.best]]
        if len(first) > 1:
            backbone, dataset = comparison.group
            said.append(f"{_listed(first)} on {dataset} from {backbone}")
    return f"The same best mean: {'; '.join(said)}." if said else ""


def across(comparisons: Sequence[Comparison], higher_is_better: bool) -> str:
    """Mean ranks over the data sets of each backbone, Friedman's test and Nemenyi's distance.

    Empty where no backbone has two data sets on which the same two techniques are complete.
    """
    backbones = list(dict.fromkeys(comparison.group[0] for comparison in comparisons))
    said = []
    for backbone in backbones:
        scores = {c.group[1]: c.means for c in comparisons if c.group[0] == backbone and c.means}
        # a technique that a data set lacks is no column of it, and `rank` leaves it out
        ranked = rank(scores, higher_is_better) if len(scores) > 1 else None
        if ranked is not None:
            where = f"From {backbone}: mean" if len(backbones) > 1 else "Mean"
            said.append(f"{where} ranks over {ranked.data_sets} data sets (1 the best): "
                        f"{ranks_text(ranked)}.")
    return " ".join(said)


def ranks_text(ranked: Ranked) -> str:
    """`full 1.25, lora 1.75; Friedman's test p = 0.2; Nemenyi: ... apart at 5%`."""
    order = sorted(ranked.ranks, key=lambda name: ranked.ranks[name])
    text = ", ".join(f"{name} {ranked.ranks[name]:.2f}" for name in order)
    if math.isfinite(ranked.p):
        p = "p < 0.001" if ranked.p < 0.001 else f"p = {ranked.p:.3f}"
        text += f". Friedman's test (Iman and Davenport): {p}"
    return (f"{text}. Nemenyi: ranks {ranked.difference:.2f} or more apart differ at 5%, for "
            f"{len(order)} techniques")


def ranged(counts: set[int]) -> str:
    """`3`, or `2 to 3`."""
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def answer(comparison: Comparison, metric: str, named: bool) -> str:
    """One sentence: which technique is best, and from which the data do not tell it.

    Args:
        comparison: of a group with a best technique.
        metric: the one compared.
        named: whether to say which group it is.
    """
    number = digits(metric, list(comparison.means.values()))
    unit = "%" if is_percent(metric) else ""
    backbone, dataset = comparison.group
    where = f" on {dataset} from {backbone}" if named else ""
    best, name = comparison.best, metric.partition("/")[2]
    score = f"{number(comparison.means[best])}{unit}"
    if len(comparison.means) == 1:
        return f"{best} reaches {score} in {name}{where}; there is nothing to compare it with."
    word = "highest" if comparison.higher_is_better else "lowest"
    begin = f"{best} has the {word} {name}{where}, {score}"
    others = [other for other in comparison.means if other != best]
    if not comparison.tested:
        return f"{begin}; without a second seed or predictions nothing says how sure that is."
    beside = [other for other in others if other in comparison.standing]
    worse = [other for other in others if (pair := comparison.against_best(other)) is not None
             and pair.differs]
    unknown = [other for other in others if other not in beside and other not in worse]
    parts = []
    if worse:
        parts.append(f"significantly better than {_listed([_far(comparison, metric, other) for other in worse])}")
    if beside:
        parts.append(f"not significantly better than {_listed([_far(comparison, metric, other) for other in beside])}")
    if unknown:
        parts.append(f"not tested against {_listed(unknown)}")
    return f"{begin}: {'; '.join(parts)}."


def _far(comparison: Comparison, metric: str, other: str) -> str:
    """`lora (by 1.20 points, p = 0.03)`."""
    if comparison.means[other] == comparison.means[comparison.best]:
        return f"{other} (the same mean)"
    number = digits(metric, list(comparison.means.values()))
    unit = " points" if is_percent(metric) else ""
    pair = comparison.against_best(other)
    return f"{other} (by {number(comparison.worse_by(other))}{unit}, {_p(pair)})"


def _p(pair: Compared | None) -> str:
    if pair is None or pair.decides is None:
        return "equal, untested"
    return "p < 0.001" if pair.p < 0.001 else f"p = {pair.p:.3f}".rstrip("0").rstrip(".")


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
