"""Verdicts in words, for the terminal, tables, reports and tags."""

from __future__ import annotations

import math
from collections.abc import Callable

from ftlab.statistics.clusters import units
from ftlab.statistics.multiple_testing import Pair
from ftlab.statistics.verdict import Decision, Rule, Verdict, smallest_margin
from ftlab.tracking.metric_range import is_percent
from ftlab.wording import counted

USUAL = 0.07, 0.19
"""Standard deviation over examples of the expected difference of two adapted models, between right
and wrong: what was seen on small text corpora. For a first guess, before anything has run."""


def amount(metric: str) -> Callable[[float], str]:
    """Differences of a metric as text, `2.3 points` where it is shown in percent."""
    if is_percent(metric):
        return lambda value: f"{100 * value:.2f} points".replace(".00 points", " points")
    return lambda value: f"{value:.3g}"


def words(pair: Pair, verdict: Verdict, metric: str, higher_is_better: bool) -> str:
    """`lora is better than full by 3.21 points (9 seeds)`.

    Args:
        pair: the difference is of the first less the second.
        verdict: on it.
        metric: with its split.
        higher_is_better: of the metric.
    """
    first, second = pair
    return f"{first} {standing(verdict, second, metric, higher_is_better)}"


def standing(verdict: Verdict, other: str, metric: str, higher_is_better: bool) -> str:
    """`is better than full by 3.21 points (9 seeds)`."""
    unit, found = amount(metric), verdict.evidence
    if verdict.kind == "failed":
        return f"is not compared with {other}: {verdict.reason}"
    if found is None:
        return f"is not compared with {other} yet"
    seeds = counted(found.seeds, "seed")
    apart = unit(abs(found.difference))
    margin = unit(verdict.margin)
    if verdict.kind == "different":
        better = (found.difference > 0) == higher_is_better
        return f"is {'better' if better else 'worse'} than {other} by {apart} ({seeds})"
    if verdict.kind == "equal":
        return f"equals {other} within {margin} ({seeds}, {apart} apart)"
    within = "" if math.isinf(verdict.equal_within) else \
        f"; within {unit(verdict.equal_within)} they are equal"
    if verdict.kind == "undecidable":
        return (f"and {other} are undecidable on this test set of {found.units}, "
                f"whatever the seeds: {margin} would take about {verdict.examples:,}"
                f"{' clusters' if found.clustered else ''}{within}")
    planned = f"; p = {found.p_differs:.2g} had they been planned, which claims nothing" \
        if verdict.last else ""
    begin = f"and {other} are undecided with {seeds} ({apart} apart{within}{planned})"
    if verdict.examples:
        return f"{begin}: {margin} would take about {verdict.examples:,} {'clusters' if found.clustered else 'examples'}"
    if verdict.more_seeds is None:
        return f"{begin}: no number of seeds is expected to tell"
    return f"{begin}: about {counted(verdict.more_seeds, 'more seed')} would be expected to tell"


def first_look(decision: Decision, rule: Rule, metric: str) -> str:
    """The smallest margin that the test set allows, from the first seeds; empty without examples."""
    found = [verdict.evidence for verdict in decision.verdicts.values() if verdict.evidence is not None]
    if not found or not found[0].examples:
        return ""
    margins = sorted(smallest_margin(each.by_examples, len(decision.verdicts)) for each in found)
    unit = amount(metric)
    spread = unit(margins[-1]) if len(margins) == 1 else \
        f"{unit(margins[0]).removesuffix(' points')} to {unit(margins[-1])}"
    beyond = sum(margin > rule.margin for margin in margins)
    but = f", more than the study's {unit(rule.margin)} in {beyond} of {len(margins)} comparisons" \
        if beyond else ""
    return (f"with {units(found[0].examples, found[0].clustered, 'test examples')} equality can be shown within {spread} at best, "
            f"whatever the seeds{but}")


def foretold_margin(examples: int, comparisons: int, metric: str) -> str:
    """The same before anything has run, as other studies suggest it; empty for other metrics."""
    if not is_percent(metric) or examples < 1 or comparisons < 1:
        return ""
    low, high = (smallest_margin(spread**2 / examples, comparisons) for spread in USUAL)
    span = f"{amount(metric)(low).removesuffix(' points')} to {amount(metric)(high)}"
    return (f"with {examples:,} test examples equality can usually be shown within {span} at best, "
            "whatever the seeds; the first seeds will tell")


def cost(seconds: float, resolved: int, asked: int, fixed: float | None = None, most: int = 0) -> str:
    """The cost of an answer: `1,204 s of runs, 301 s for each of 4 resolved comparisons of 6`.

    Args:
        seconds: of all runs.
        resolved: comparisons with a verdict.
        asked: comparisons.
        fixed: seconds that a fixed number of seeds would have taken; None to leave it out.
        most: that number.
    """
    each = f", {seconds / resolved:,.0f} s for each of {resolved}" if resolved else ", for none"
    text = f"{seconds:,.0f} s of runs{each} resolved of {counted(asked, 'comparison')}"
    if fixed is not None:
        text += f"; {most} seeds of every technique would have taken {fixed:,.0f} s"
    return text
