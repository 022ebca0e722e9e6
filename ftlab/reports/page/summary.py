"""The first thing that a reader sees: the question, and what the tests allow to answer."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ftlab.reports import against_baseline, levels, verdicts
from ftlab.reports.cell_summary import CellSummary
from ftlab.reports.comparison import Comparison, ranked
from ftlab.reports.page.markup import Markup, folded, join, table, tag
from ftlab.reports.sentences import DRAWS, answer, ranged
from ftlab.reports.study_results import StudyResults
from ftlab.statistics.multiple_testing import LEVEL
from ftlab.statistics.ranks import RankComparison
from ftlab.studies.decisions import rule_of
from ftlab.studies.verdict_words import amount
from ftlab.wording import listed

MOST = 6  # sentences on one data set each
NOTHING = "No technique has finished all its seeds, so that there is nothing to compare yet."


def head(results: StudyResults, seeds: Sequence[int], select_by: str) -> Markup:
    """Study, question, answer, and what the answer stands on."""
    comparisons = results.comparisons
    answers = [answer(comparison, results.metric, len(comparisons) > 1)
            for comparison in comparisons if comparison.best]
    sentences = against_baseline.sentences(comparisons, results.metric)
    sentences += levels.sentences(results)
    sentences += over_data_sets(levels.apart(comparisons, results), results.higher_is_better)
    beside = answers if len(answers) > MOST else []  # so many are no answer: folded below it
    sentences += answers if not beside else []
    sentences += [f"{sentence}." for comparison in comparisons if not comparison.baseline
                  for sentence in verdicts.between(comparison, results.metric)]
    if len(results.groups) == 1 and answers:
        sentences += at_what_cost(results, comparisons[0])
    sentences += left_out(results) if answers else []
    complete = sum(not row.note for row in results.rows)
    drawn = any(comparison.overlap for comparison in comparisons)
    count = DRAWS.format(n=len(seeds)) if drawn else f"{len(seeds)} seed{'s' * (len(seeds) > 1)}"
    count += f" ({', '.join(map(str, seeds))})"
    if results.until is not None:
        margin = amount(results.metric)(rule_of(results.until, results.metric).margin)
        counts = {row.summary.n for row in results.rows if row.summary.n} or {0}
        n = DRAWS.format(n=ranged(counts)) if drawn else f"{ranged(counts)} seeds"
        count = f"{n}, added until decided with a margin of {margin}, at most {len(seeds)}"
    claim = "; the claim is of another training set of this size" if drawn else ""
    return join([
        tag("p", f"ftlab study {results.study}", class_="study"),
        tag("h1", results.question or f"What does the study {results.study} say?"),
        tag("div", *(tag("p", sentence) for sentence in sentences or [NOTHING] * (not beside)),
            *([folded(f"Each of {len(beside)} data sets", *(tag("p", line) for line in beside))]
              if beside else []), class_="answer"),
        tag("p", f"{results.metric} compared; epochs selected by {select_by}; "
                 f"{complete} of {len(results.rows)} cells complete; {count}{claim}.", class_="about"),
    ])


def at_what_cost(results: StudyResults, comparison: Comparison) -> list[str]:
    """Parameters that the cheapest of the undecided techniques trains; a sentence, or none."""
    sizes = {row.key.technique: row for row in results.rows if math.isfinite(row.trainable)}
    beside = [name for name in comparison.standing if name in sizes]
    if comparison.best not in beside:
        return []
    least = min(beside, key=lambda name: sizes[name].trainable)
    best = _trains(sizes[comparison.best])
    if len(beside) == 1:
        return [f"It trains {best}."]
    if sizes[least].trainable == sizes[comparison.best].trainable:
        return [f"It trains {best}, and none of those not significantly worse trains fewer."]
    cheapest = _trains(sizes[least])
    return [f"{least}, not significantly worse, trains {cheapest} where {comparison.best} trains {best}."]


def _trains(row: CellSummary) -> str:
    share = f" ({row.percent:.3g}% of all)" if math.isfinite(row.percent) else ""
    return f"{row.trainable:,.0f} parameters{share}"


def left_out(results: StudyResults) -> list[str]:
    """Techniques not in the answer, whose seeds failed or never ran; a sentence, or none."""
    gone: dict[str, int] = {}
    for row in results.rows:
        if row.note:
            gone[row.key.technique] = gone.get(row.key.technique, 0) + 1
    everywhere = len(results.groups)
    if not gone:
        return []
    named = [name if count == everywhere else f"{name} (in {count} of {everywhere} comparisons)"
             for name, count in gone.items()]
    names = named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"
    return [f"Not compared, as not all of their seeds have finished: {names}."]


def over_data_sets(comparisons: Sequence[Comparison], higher_is_better: bool) -> list[str]:
    """A sentence a backbone with two data sets or more: who ranks first over them, and how sure."""
    several = len({comparison.group[0] for comparison in comparisons}) > 1
    return [_ranking(ranking, f" from {backbone}" if several else "")
            for backbone, ranking in ranked(comparisons, higher_is_better).items()]


def _ranking(ranking: RankComparison, where: str) -> str:
    order = sorted(ranking.ranks, key=lambda name: ranking.ranks[name])
    best = order[0]
    text = (f"Over {ranking.data_sets} data sets{where} {best} has the best mean rank, "
            f"{ranking.ranks[best]:.2f}")
    if ranking.p > LEVEL:  # nan with two techniques, for which Nemenyi's test alone decides
        return (f"{text}, but the techniques' ranks do not differ significantly (Friedman's test, "
                f"p = {ranking.p:.2g}).")
    to_best = ranking.pairs[best]
    worse = [name for name in order[1:] if to_best[name] <= LEVEL]
    beside = [name for name in order[1:] if name not in worse]
    parts = []
    if worse:
        parts.append(f"significantly better than {_listed(ranking, worse)}")
    if beside:
        parts.append(f"not significantly better than {_listed(ranking, beside)}")
    return f"{text}: {'; '.join(parts)} (Nemenyi's test)."


def _listed(ranking: RankComparison, names: Sequence[str]) -> str:
    texts = [f"{name} ({ranking.ranks[name]:.2f})" for name in names]
    return listed(texts)


def tests(comparisons: Sequence[Comparison]) -> Markup:
    """Every pair, folded."""
    lines = []
    for comparison in comparisons:
        for (a, b), pair in comparison.pairs.items():
            where = f"{comparison.group[1]} from {comparison.group[0]}"
            if (test := pair.decides) is None:
                alone = pair.examples
                lines.append([f"{a} - {b}", where, "not tested", "", "", "", "", "",
                              *([""] if comparison.rule else []), "" if alone is None else f"these trained models alone: {alone.test}, "
                              f"p = {alone.p:.3g}"])
                continue
            lines.append([
                f"{a} - {b}", where, f"{test.difference:+.4g}",
                f"[{test.low:.4g}, {test.high:.4g}]", _number(test.effect), f"{test.p:.3g}",
                f"{pair.p:.3g}", f"{pair.equal_within:.4g}",
                *([pair.verdict.kind if pair.verdict else ""] if comparison.rule else []),
                f"{test.test}; {test.seeds} seeds, {test.units}"])
    if not lines:
        return Markup("")
    verdict = ["verdict"] if any(comparison.rule for comparison in comparisons) else []
    headings = ["pair", "group", "difference", "95% interval", "effect (Cohen's d)", "p",
                "p (Holm)", "equal within", *verdict, "test"]
    return folded(f"All {len(lines)} paired tests", table(headings, lines))


def _number(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "-"
