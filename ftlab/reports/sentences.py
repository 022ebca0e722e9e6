"""The claims that the tests support, as sentences."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from ftlab.reports.comparison import Compared, Comparison, ranked
from ftlab.reports.metric_text import digits
from ftlab.statistics.overlap import inflation
from ftlab.statistics.ranks import RankComparison
from ftlab.studies.tuned import Tuned
from ftlab.tracking.metric_range import is_percent
from ftlab.wording import listed

TOO_MUCH = 0.5
"""Share of the pool in each training set from which more seeds say next to nothing more."""
FEW_SEEDS = ("with fewer than three seeds in common it is these trained models that are compared, "
             "and nothing is claimed of the techniques")
DRAWS = "{n} draws of the training set, each with its own seed"


def bold(comparisons: Sequence[Comparison], higher_is_better: bool) -> str:
    """Explain the bold numbers: test, family, correction and n."""
    best = f"The best{'' if higher_is_better else ' (lowest)'} mean of its backbone and data set"
    decided = [pair.decides for comparison in comparisons for pair in comparison.pairs.values()
               if pair.decides is not None]
    if not decided and any(comparison.pairs for comparison in comparisons):
        return f"Nothing: {FEW_SEEDS}."
    if not decided:
        return f"{best}; nothing was tested."
    tests = list(dict.fromkeys(test.test for test in decided))
    drawn = any(comparison.overlap for comparison in comparisons)
    text = f"{best}, and all that are not significantly worse: {' or '.join(tests)}"
    for name, counts, of in (
            ("seed", {test.seeds for test in decided}, set()),
            ("example", {test.examples for test in decided if test.examples and not test.clustered}, set()),
            ("cluster", {test.examples for test in decided if test.clustered},
             {test.clustered for test in decided if test.clustered})):
        if counts:
            whole = f" of {ranged(of)} examples" if of else ""
            n = f"{ranged(counts)} {name}{'s' * (counts != {1})}{whole}"
            text += f", n = {DRAWS.format(n=ranged(counts)) if name == 'seed' and drawn else n}"
    families = {len(comparison.pairs) for comparison in comparisons if comparison.tested}
    many = "pair" if families == {1} else "pairs"
    text += (f", Holm's correction over the {ranged(families)} {many} of techniques, "
             "5% chance of any false claim.")
    untested = sum(pair.decides is None for comparison in comparisons
                   for pair in comparison.pairs.values())
    if untested:
        text += (f" {untested} pair{'s' * (untested > 1)}: untested, {FEW_SEEDS}. Without a test "
                 "nothing is in bold.")
    return text


def draws(comparisons: Sequence[Comparison]) -> str:
    """Say what is claimed where each seed draws its training set; empty where none does."""
    shares = {comparison.overlap for comparison in comparisons if comparison.overlap}
    if not shares:
        return ""
    text = ("A seed draws which examples train and which validate, the same for all techniques; the test "
            "examples are the same in all. The claim is of another training set of this size. "
            "Two draws have part of their examples in common, "
            f"{listed([f'{share:.2g}' for share in sorted(shares)])} of them on average, by which the tests "
            "widen the variance over seeds (Nadeau, Bengio 2003); the intervals of single techniques do not.")
    if (most := max(shares)) >= TOO_MUCH:
        seeds = {test.seeds for comparison in comparisons if comparison.overlap == most
                 for pair in comparison.pairs.values() if (test := pair.decides) is not None}
        factor = f"{inflation(most, max(seeds)):.0f} times" if seeds else "many times"
        text += (f" With {most:.2g} of the examples in each training set it is {factor} what it would be "
                 "with draws of their own: another training set is a question for new data.")
    return text


def ties(comparisons: Sequence[Comparison]) -> str:
    """Name techniques that share the best mean, exactly; empty where none do."""
    texts = []
    for comparison in comparisons:
        first = [name for name, mean in comparison.means.items()
                 if mean == comparison.means[comparison.best]]
        if len(first) > 1:
            backbone, dataset = comparison.group
            texts.append(f"{listed(first)} on {dataset} from {backbone}")
    return f"The same best mean: {'; '.join(texts)}." if texts else ""


def across(comparisons: Sequence[Comparison], higher_is_better: bool) -> str:
    """Mean ranks over the data sets of each backbone, Friedman's test and Nemenyi's distance.

    Empty where no backbone has two data sets on which the same two techniques are complete.
    """
    several = len({comparison.group[0] for comparison in comparisons}) > 1
    return " ".join(
        f"{f'From {backbone}: mean' if several else 'Mean'} ranks over {ranking.data_sets} data sets "
        f"(1 the best): {ranks_text(ranking)}."
        for backbone, ranking in ranked(comparisons, higher_is_better).items())


def ranks_text(ranking: RankComparison) -> str:
    """`full 1.25, lora 1.75. Friedman's test ...: p = 0.200. Nemenyi: ranks 1.39 or more ...`."""
    order = sorted(ranking.ranks, key=lambda name: ranking.ranks[name])
    text = ", ".join(f"{name} {ranking.ranks[name]:.2f}" for name in order)
    if math.isfinite(ranking.p):
        p = "p < 0.001" if ranking.p < 0.001 else f"p = {ranking.p:.3f}"
        text += f". Friedman's test by permutation: {p}"
    return (f"{text}. Nemenyi: ranks {ranking.difference:.2f} or more apart differ at 5%, for "
            f"{len(order)} techniques")


def ranged(counts: set[int]) -> str:
    """`3`, or `2 to 3`."""
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def answer(comparison: Comparison, metric: str, named: bool) -> str:
    """One sentence: which technique is best, and from which the data do not separate it.

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
        return f"{best} reaches {score} in {name}{where}; no other technique is complete."
    word = "highest" if comparison.higher_is_better else "lowest"
    begin = f"{best} has the {word} {name}{where}, {score}"
    others = [other for other in comparison.means if other != best]
    if comparison.rule is not None:  # a verdict says how it stands to the baseline
        others = [other for other in others if comparison.baseline not in (other, best)]
        if not others:
            return f"{begin}."
    if not comparison.tested:
        return f"{begin}; {FEW_SEEDS}."
    beside = [other for other in others if other in comparison.standing]
    worse = [other for other in others if (pair := comparison.against_best(other)) is not None
             and pair.differs]
    unknown = [other for other in others if other not in beside and other not in worse]
    parts = []
    if len(beside) == len(others) > 2:
        parts.append(_than_none(comparison, metric, others))
        beside = []
    if worse:
        parts.append(f"significantly better than {listed([_far(comparison, metric, other) for other in worse])}")
    if beside:
        parts.append(f"not significantly better than {listed([_far(comparison, metric, other) for other in beside])}")
    if unknown:
        parts.append(f"not tested against {listed(unknown)}")
    return f"{begin}: {'; '.join(parts)}."


def _than_none(comparison: Comparison, metric: str, others: Sequence[str]) -> str:
    """`not significantly better than any of the other 6 (by 1.73 to 11.79 points, p = ...)`."""
    number = digits(metric, list(comparison.means.values()))
    smallest = least([pair for other in others
                      if (pair := comparison.against_best(other)) is not None])
    apart = sorted(comparison.worse_by(other) for other in others)
    return (f"not significantly better than any of the other {len(others)} (by {number(apart[0])} "
            f"to {number(apart[-1])}{' points' * is_percent(metric)}, {smallest})")


def _far(comparison: Comparison, metric: str, other: str) -> str:
    """`lora (by 1.20 points, p = 0.03)`."""
    if comparison.means[other] == comparison.means[comparison.best]:
        return f"{other} (the same mean)"
    number = digits(metric, list(comparison.means.values()))
    unit = " points" if is_percent(metric) else ""
    pair = comparison.against_best(other)
    return f"{other} (by {number(comparison.worse_by(other))}{unit}, {p_text(pair)})"


def p_text(pair: Compared | None) -> str:
    """`p = 0.03`, corrected."""
    if pair is None or pair.decides is None:
        return "equal, untested"
    return "p < 0.001" if pair.p < 0.001 else f"p = {pair.p:.3f}".rstrip("0").rstrip(".")


def least(pairs: Sequence[Compared]) -> str:
    """The smallest of their p-values: `p = 0.614 or more`."""
    lowest = min(pairs, key=lambda pair: pair.p)
    return p_text(lowest) if lowest.p == 1 else f"{p_text(lowest)} or more"


def tuning(tuned: Tuned | None, seeds: Collection[int]) -> str:
    """How far what is claimed goes where the settings were searched; empty where they were not.

    Args:
        tuned: as the study says.
        seeds: of the finished runs.
    """
    if tuned is None:
        return ""
    trials = f"{tuned.trials} trial{'s' * (tuned.trials > 1)}"
    if tuned.searches > 1:
        text = (f"n = {tuned.searches} searches, each of {trials}, its winner tested with one fresh "
                "seed: what is called a seed here is a search. " + (
                    "Each chose on a validation split of its own." if tuned.splits else
                    "All searches chose on the same validation split."))
    else:
        text = (f"These settings, each the best of {trials} on one validation split; not what another "
                "search would find.")
    if again := sorted(set(seeds) & set(tuned.seeds)):
        text += (f" Seed {listed(list(map(str, again)))} chose them too, and keeps the luck of the "
                 "choice: take seeds that the search did not use.")
    return text
