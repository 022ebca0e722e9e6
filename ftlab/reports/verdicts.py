"""Verdicts of a study that runs until it is decided, in tables, reports and tags."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ftlab.reports.comparison import Compared, Comparison
from ftlab.statistics.multiple_testing import Pair
from ftlab.studies.verdict_words import amount, cost, standing, words
from ftlab.tracking.records import CellRecord
from ftlab.wording import counted, listed

HOW = ("The seeds were added until each comparison was decided, or no verdict was likely with at most "
       "{most}: a look after every further seed, whose levels sum up to {level} (an error-spending "
       "boundary), and Holm's correction over the {family} of each data set, once for differences and "
       "once for equalities within {margin}: of either, 5% chance of any false claim. P-values hold "
       "whenever one stops.")


def against(comparison: Comparison, metric: str, order: Sequence[str]) -> str:
    """`ia3 (by 6.91 points) is better than full; lora equals it within 2.00 points; ...`.

    Args:
        comparison: with a baseline and a rule.
        metric: compared.
        order: the other techniques.
    """
    unit, baseline = amount(metric), comparison.baseline
    parts = []
    for side, word in ((1, "better"), (-1, "worse")):
        found = {name: comparison.against[name].decides for name in order
                 if _side(comparison, name) == side}
        if found:
            names = [f"{name} (by {unit(abs(test.difference))}, {counted(test.seeds, 'seed')})"
                     for name, test in found.items() if test is not None]
            parts.append(f"{listed(names)} {'is' if len(names) == 1 else 'are'} {word} than {baseline}")
    equal = [name for name in order if _kind(comparison, name) == "equal"]
    if equal:
        margin = unit(comparison.against[equal[0]].verdict.margin)  # type: ignore[union-attr]  # it has one
        verb = "equals" if len(equal) == 1 else "equal"
        parts.append(f"{listed(equal)} {verb} {baseline} within {margin}")
    for name in order:
        verdict = comparison.against[name].verdict
        if verdict is not None and not verdict.resolved:
            parts.append(f"{name} {standing(verdict, baseline, metric, comparison.higher_is_better)}")
    return "; ".join(parts)


def _kind(comparison: Comparison, name: str) -> str:
    verdict = comparison.against[name].verdict
    return "" if verdict is None else verdict.kind


def _side(comparison: Comparison, name: str) -> int:
    """1 where a technique is found to be better than the baseline, -1 where worse, 0 where neither."""
    test = comparison.against[name].decides
    if _kind(comparison, name) != "different" or test is None:
        return 0
    first = next(pair for pair in comparison.pairs if set(pair) == {name, comparison.baseline})[0]
    upwards = (test.difference > 0) == (first == name)
    return 1 if upwards == comparison.higher_is_better else -1


def between(comparison: Comparison, metric: str) -> list[str]:
    """A verdict on each pair of a study without a baseline, those that are resolved first."""
    pairs = [(pair, compared.verdict) for pair, compared in comparison.pairs.items()
             if compared.verdict is not None]
    pairs.sort(key=lambda entry: not entry[1].resolved)
    return [words(pair, verdict, metric, comparison.higher_is_better) for pair, verdict in pairs]


def method(comparisons: Sequence[Comparison], metric: str) -> str:
    """How verdicts were reached; empty for a study of so many seeds as it says."""
    rule = next((comparison.rule for comparison in comparisons if comparison.rule), None)
    if rule is None:
        return ""
    sizes = {len(comparison.questions) for comparison in comparisons}
    family = counted(max(sizes), "comparison") + (" at most" if len(sizes) > 1 else "")
    return HOW.format(most=rule.most, level="5%", family=family, margin=amount(metric)(rule.margin))


def tag(comparison: Comparison, technique: str, metric: str) -> str:
    """The verdict on a cell, against the baseline or the best; empty where none was reached."""
    other = comparison.baseline or comparison.best
    if technique == other:
        return "baseline" if comparison.baseline else ""
    compared = comparison.questions.get((technique, other)) or comparison.questions.get((other, technique))
    if compared is None or compared.verdict is None:
        return ""
    verdict, upwards = compared.verdict, comparison.higher_is_better
    turned = (technique, other) not in comparison.questions
    return standing(verdict, other, metric, upwards is not turned)


def price(comparisons: Sequence[Comparison], records: Iterable[CellRecord]) -> str:
    """Run-seconds for each resolved comparison, and what fixed seeds would have cost; or empty."""
    asked: dict[tuple[str, str], dict[Pair, Compared]] = {
        comparison.group: comparison.questions for comparison in comparisons if comparison.questions}
    total = fixed = 0.0
    rule = next((comparison.rule for comparison in comparisons if comparison.rule), None)
    for record in records:
        if (record.key.backbone, record.key.dataset) not in asked:
            continue
        seconds = [run.seconds for run in record.finished if run.seconds is not None]
        total += sum(seconds)
        if rule is not None and seconds:
            fixed += rule.most * sum(seconds) / len(seconds)
    pairs = [compared for questions in asked.values() for compared in questions.values()]
    if not pairs or not total:
        return ""
    resolved = sum(_resolved(compared) for compared in pairs)
    return f"{cost(total, resolved, len(pairs), fixed or None, rule.most if rule else 0)}."


def _resolved(compared: Compared) -> bool:
    return compared.differs if compared.verdict is None else compared.verdict.resolved


