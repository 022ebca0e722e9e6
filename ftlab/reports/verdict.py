"""What the tests allow to say, as sentences."""

from __future__ import annotations

from collections.abc import Sequence

from ftlab.reports.comparison import Compared, Comparison
from ftlab.reports.metric_text import digits, is_percent


def bold(comparisons: Sequence[Comparison], higher_is_better: bool) -> str:
    """What is in bold, and by which test, family, correction and n."""
    best = f"the best{'' if higher_is_better else ' (lowest)'} mean of its backbone and data set"
    decided = [pair.decides for comparison in comparisons for pair in comparison.pairs.values()
               if pair.decides is not None]
    if not decided:
        return f"Bold: {best}; nothing was tested."
    tests = list(dict.fromkeys(test.test for test in decided))
    text = f"Bold: {best}, and all that are not significantly worse: {' or '.join(tests)}"
    for name, counts in (("seeds", {test.seeds for test in decided}),
                         ("examples", {test.examples for test in decided if test.examples})):
        if counts:
            text += f", n = {_range(counts)} {name}"
    families = {len(comparison.pairs) for comparison in comparisons if comparison.tested}
    many = "pair" if families == {1} else "pairs"
    text += (f", Holm's correction over the {_range(families)} {many} of techniques, "
             "5% chance of any false claim.")
    untested = sum(pair.decides is None for comparison in comparisons
                   for pair in comparison.pairs.values())
    if untested:
        text += f" {untested} pairs have no two seeds and no predictions in common: untested."
    if any(test.seeds == 1 for test in decided):
        text += " With one seed it is these trained models that are compared, not the techniques."
    return text


def _range(counts: set[int]) -> str:
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
