"""Sentences on techniques against a study's baseline, as far as the tests support them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ftlab.reports import verdicts
from ftlab.reports.comparison import Comparison
from ftlab.reports.metric_text import digits
from ftlab.reports.sentences import FEW_SEEDS, least, p_text, ranged
from ftlab.tracking.metric_range import is_percent
from ftlab.wording import listed

FEW_GROUPS = 3
"""Up to so many backbones and data sets have a sentence each; more are counted."""


def sentences(comparisons: Sequence[Comparison], metric: str) -> list[str]:
    """Say how much of the baseline the others keep, and which of them differ from it.

    One sentence a backbone and data set; of more than FEW_GROUPS how often each technique was
    better and worse. Empty without a baseline, or where it is complete nowhere.

    Args:
        comparisons: of the groups.
        metric: the one compared.
    """
    having = [group for group in comparisons if group.against]
    if len(having) <= FEW_GROUPS:
        return [_kept(group, metric, len(comparisons) > 1) for group in having]
    names = list(dict.fromkeys(name for group in having for name in group.against))
    counts = []
    for name in names:
        sides = [_side(group, name) for group in having if name in group.against]
        counts.append(f"{name} {sides.count(1)} times and {sides.count(-1)} times of {len(sides)}")
    begin = f"Significantly better and worse than {having[0].baseline} in {metric.partition('/')[2]}"
    return [f"{begin}, of all backbones and data sets: {', '.join(counts)}."]


def _kept(comparison: Comparison, metric: str, named: bool) -> str:
    """`Of full's accuracy, 83.0%, ia3 keeps 108.3%, ...: none of them differs ...`."""
    number = digits(metric, list(comparison.means.values()))
    baseline, name = comparison.baseline, metric.partition("/")[2]
    mean = comparison.means[baseline]
    where = f" on {comparison.group[1]} from {comparison.group[0]}" if named else ""
    sign = 1 if comparison.higher_is_better else -1
    order = sorted(comparison.against, key=lambda other: -sign * comparison.means[other])
    unit = "%" if is_percent(metric) else ""
    begin = f"{name}{where}, {number(mean)}{unit}"
    if is_percent(metric) and comparison.higher_is_better and mean > 0:
        shares = [f"{comparison.means[other] / mean:.1%}" for other in order]
        text = f"Of {baseline}'s {begin}, {order[0]} keeps {shares[0]}"
        text += "".join(f", {other} {share}" for other, share in zip(order[1:], shares[1:], strict=True))
    else:
        apart = [_signed(comparison.means[other] - mean, number, metric) for other in order]
        text = f"Against {baseline}'s {begin}: "
        text += ", ".join(f"{other} {by}" for other, by in zip(order, apart, strict=True))
    found = verdicts.against(comparison, metric, order) if comparison.rule else \
        _differing(comparison, order)
    return f"{text}; {found}."


def _signed(difference: float, number: Callable[[float], str], metric: str) -> str:
    unit = " points" if is_percent(metric) else ""
    return f"{'-' if difference < 0 else '+'}{number(abs(difference))}{unit}"


def _side(comparison: Comparison, other: str) -> int:
    """1 where it is significantly better than the baseline, -1 where worse, 0 where neither."""
    if not comparison.against[other].differs:
        return 0
    above = comparison.means[other] > comparison.means[comparison.baseline]
    return 1 if above == comparison.higher_is_better else -1


def _differing(comparison: Comparison, order: Sequence[str]) -> str:
    """`ia3 is significantly better (p = 0.01), the others do not differ significantly (...)`."""
    baseline, pairs = comparison.baseline, comparison.against
    if all(pairs[other].decides is None for other in order):
        return FEW_SEEDS
    parts = []
    for side, word in ((1, "better"), (-1, "worse")):
        names = [f"{other} ({p_text(pairs[other])})" for other in order
                 if _side(comparison, other) == side]
        if names:
            parts.append(f"{listed(names)} {'is' if len(names) == 1 else 'are'} significantly "
                         f"{word} than {baseline}")
    beside = [other for other in order if pairs[other].decides is not None
              and not pairs[other].differs]
    if len(beside) == len(order) > 1:
        parts.append(f"none of them differs significantly from {baseline} "
                     f"({least([pairs[other] for other in beside])})")
    elif beside:
        verb = "does" if len(beside) == 1 else "do"
        names = [f"{other} ({p_text(pairs[other])})" for other in beside]
        parts.append(f"{listed(names)} {verb} not differ significantly from it")
    if untested := [other for other in order if pairs[other].decides is None]:
        parts.append(f"{listed(untested)} {'was' if len(untested) == 1 else 'were'} not tested")
    return "; ".join(parts)


def family(comparisons: Sequence[Comparison]) -> str:
    """The tests behind the sentences; empty without a baseline."""
    sizes = {len(group.against) for group in comparisons if group.against}
    if not sizes or any(group.rule for group in comparisons):  # `verdicts.method` says it
        return ""
    pairs = "pair" if sizes == {1} else "pairs"
    return (f"The same test; Holm's correction over the {ranged(sizes)} {pairs} with the baseline "
            "alone, since the study names it: 5% chance of any false claim among these.")
