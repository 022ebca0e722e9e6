"""The best technique of a group, and those that the data do not separate from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ftlab.reports.cell_summary import CellSummary
from ftlab.statistics.evidence import Evidence
from ftlab.statistics.moderated import SeedScores
from ftlab.statistics.multiple_testing import FEWEST, LEVEL, Pair, holm, pairs, standing
from ftlab.statistics.paired import OVER_SEEDS, PairedResult, over_examples, over_seeds, result
from ftlab.statistics.ranks import RankComparison, rank
from ftlab.statistics.seed_summary import summarise
from ftlab.statistics.two_studies import step
from ftlab.statistics.until_decided import compare as evidence_of
from ftlab.statistics.verdict import Decision, Rule, Verdict
from ftlab.studies.decisions import decided, rule_of
from ftlab.studies.seeds import UntilDecided
from ftlab.tracking import gc_pause
from ftlab.tracking.cell_metric import CellMetric, Contributions, in_same_clusters, measured
from ftlab.tracking.metric_range import limits
from ftlab.tracking.records import CellKey, CellRecord
from ftlab.tracking.tracker import Tracker


@dataclass(frozen=True)
class Compared:
    """A pair of techniques.

    Attributes:
        decides: the test whose p-value counts: over seeds and examples where both are known,
            over seeds without predictions; None below three seeds in common.
        seeds: the paired test over seeds alone; None below three, too.
        examples: the test of these trained models over examples alone; None without predictions.
        p: of `decides`, corrected by Holm over the family; nan where nothing was tested.
        equal_within: the smallest margin within which the two are shown to be equal, at the level
            of the family's first step; infinite where nothing was tested.
        verdict: of a study that runs until it is decided, on the pairs that it asks about.
    """

    decides: PairedResult | None
    seeds: PairedResult | None
    examples: PairedResult | None
    p: float = math.nan
    equal_within: float = math.inf
    verdict: Verdict | None = None

    @property
    def differs(self) -> bool:
        """True where a difference was found."""
        return self.p <= LEVEL


@dataclass(frozen=True)
class Comparison:
    """The complete techniques of one backbone and data set.

    Attributes:
        group: backbone and data set.
        means: over seeds, by technique, in the study's order.
        best: the technique with the best mean; empty where no technique is complete.
        standing: the best and all that are not significantly worse; empty where techniques were to
            be compared and none could be tested.
        pairs: all of them, in the order of `means`.
        higher_is_better: of the metric.
        baseline: the technique that the study compares the others with; empty for none, or where
            it is not complete.
        against: the pairs with the baseline by the other's name, of a family of their own: the
            question was asked before anything was looked at, so that Holm corrects for these alone.
        rule: of a study that runs until it is decided: p-values then hold whenever one stops.
        overlap: of the seeds' training sets, where each draws its own; 0 where all train on the same.
    """

    group: tuple[str, str]
    means: dict[str, float]
    best: str
    standing: tuple[str, ...]
    pairs: dict[Pair, Compared]
    higher_is_better: bool
    baseline: str = ""
    against: dict[str, Compared] = field(default_factory=dict)
    rule: Rule | None = None
    overlap: float = 0.0

    @property
    def questions(self) -> dict[Pair, Compared]:
        """The pairs with the baseline, or all where there is none."""
        if not self.against:
            return self.pairs
        return {pair: self.against[pair[self.baseline == pair[0]]] for pair in self.pairs
                if self.baseline in pair}

    @property
    def tested(self) -> bool:
        """True where any pair was tested."""
        return any(pair.decides is not None for pair in self.pairs.values())

    def against_best(self, technique: str) -> Compared | None:
        """The pair of the best and another."""
        return self.pairs.get((self.best, technique)) or self.pairs.get((technique, self.best))

    def worse_by(self, technique: str) -> float:
        """How much better the best is, never negative; over the seeds of their test, where it decides."""
        pair = self.against_best(technique)
        if pair is not None and pair.decides is not None:
            return abs(pair.decides.difference)
        return abs(self.means[self.best] - self.means[technique])


def compare(group: tuple[str, str], cells: Sequence[CellMetric], higher_is_better: bool,
            baseline: str = "", metric: str = "", until: UntilDecided | None = None,
            failed: Mapping[str, str] | None = None, overlap: float = 0.0) -> Comparison:
    """Test every pair of a group's complete cells: one family, one correction.

    Args:
        group: backbone and data set.
        cells: complete ones, in the study's order; with `until` all of them.
        higher_is_better: of the metric.
        baseline: a technique's name, against which the others are a second family.
        metric: its name, which says between what its differences lie; without one nothing does.
        until: of a study that runs until it is decided.
        failed: techniques of which a run failed, and why.
        overlap: of the seeds' training sets, see `statistics.overlap`.
    """
    everyone = {cell.key.technique: cell for cell in in_same_clusters(cells)}
    by_name = {name: cell for name, cell in everyone.items()
               if cell.values and name not in (failed or {})}
    means = {name: summarise(cell.values.values()).mean for name, cell in by_name.items()}
    if until is None:
        tested = _tested(by_name, metric, overlap)
    else:
        decision = decided(everyone, until, metric, baseline, failed=failed, overlap=overlap)
        tested = _decided(by_name, decision, metric, until.numbers)
    whole = _corrected(tested)
    with_baseline = _corrected({pair: result for pair, result in tested.items() if baseline in pair})
    # a verdict counts: what is worse than the baseline by it, or the baseline, does not stand beside it
    p_values = {pair: result.p for pair, result in (whole | (with_baseline if until else {})).items()}
    best, kept = standing(means, p_values, higher_is_better) if means else ("", [])
    kept = kept if not whole or any(pair.decides for pair in whole.values()) else []
    against = {a if b == baseline else b: result for (a, b), result in with_baseline.items()}
    return Comparison(group, means, best, tuple(kept), whole, higher_is_better,
                      baseline if baseline in means else "", against,
                      None if until is None else rule_of(until, metric, overlap), overlap)


@gc_pause.what_is_stays()  # statsmodels asks for a collection with every family
def compared(
    rows: Sequence[CellSummary],
    records: Sequence[CellRecord],
    metric: str,
    higher_is_better: bool,
    tracker: Tracker | None = None,
    contributions: Mapping[str, Contributions] | None = None,
    baseline: str = "",
    until: UntilDecided | None = None,
) -> tuple[list[CellSummary], list[Comparison]]:
    """The rows, each saying whether it stands, and the comparison of each group.

    Args:
        rows: from `rows.build`; incomplete ones are not compared.
        records: of the cells.
        metric: the one compared.
        higher_is_better: of the metric.
        tracker: where the predictions are; None leaves them unread.
        contributions: by data set, its task's.
        baseline: the technique that the others are compared with; empty for none.
        until: of a study that runs until it is decided.
    """
    by_key = {record.key: record for record in records}
    of_tasks = contributions or {}
    comparisons: dict[tuple[str, str], Comparison] = {}
    remarks: dict[CellKey, str] = {}
    for group in dict.fromkeys(row.group for row in rows):
        members = [row for row in rows if row.group == group]
        complete = [row for row in members if not row.note]
        alone = len(complete) < 2  # nobody to compare with: nothing needs to be read
        cells = [measured(by_key[row.key], metric, None if alone else tracker,
                          of_tasks.get(row.key.dataset)) if row in complete else CellMetric(row.key, {})
                 for row in members]
        remarks |= {cell.key: _remark(cell) for cell in cells}
        failed = {row.key.technique: row.note for row in members if row.note}
        overlap = max((by_key[row.key].training_share for row in members if row.key in by_key), default=0.0)
        comparisons[group] = compare(group, cells, higher_is_better, baseline, metric, until, failed, overlap)
    marked = [replace(row, remark=remarks.get(row.key, ""), stands=not row.note
                      and row.key.technique in comparisons[row.group].standing) for row in rows]
    return marked, list(comparisons.values())


def _remark(cell: CellMetric) -> str:
    """Name damaged predictions of a cell, and their effect on its comparisons."""
    files = [f"{error.name} of run {error.run.run_id}, seed {error.run.seed} ({error.why})"
             for error in cell.damaged]
    return f"tested over seeds alone, for damaged predictions: {', '.join(files)}" if files else ""


def _corrected(family: Mapping[Pair, Compared]) -> dict[Pair, Compared]:
    """A family of tests with Holm's p-values."""
    raw = {pair: math.nan if result.decides is None else result.decides.p
           for pair, result in family.items()}
    adjusted = holm(raw)
    return {pair: replace(result, p=adjusted[pair]) for pair, result in family.items()}


def ranked(comparisons: Sequence[Comparison], higher_is_better: bool) -> dict[str, RankComparison]:
    """Techniques ranked over the data sets of each backbone.

    A backbone is left out without two data sets on which the same two techniques are complete.
    """
    scores: dict[str, dict[str, Mapping[str, float]]] = {}
    for backbone, dataset, means in ((*c.group, c.means) for c in comparisons if c.means):
        scores.setdefault(backbone, {})[dataset] = means
    rankings = {backbone: rank(means, higher_is_better) for backbone, means in scores.items()}
    return {backbone: ranking for backbone, ranking in rankings.items() if ranking is not None}


def _tested(cells: Mapping[str, CellMetric], metric: str, overlap: float) -> dict[Pair, Compared]:
    """Tests of all pairs at the seeds that they have in common."""
    resolution = step(value for cell in cells.values() for value in cell.values.values())
    family = pairs(list(cells))
    found = _evidence(cells, family, resolution, overlap)
    level = LEVEL / max(1, len(family))
    return {(a, b): _pair(cells[a], cells[b], found.get((a, b)), resolution, metric, level, overlap)
            for a, b in family}


def _evidence(cells: Mapping[str, CellMetric], family: Sequence[Pair],
              resolution: float, overlap: float) -> dict[Pair, Evidence]:
    """Evidence on the pairs with enough seeds in common; by example where both tell of the same.

    Pairs of the same seeds are weighed together with all techniques that have these.
    """
    alike: dict[tuple[tuple[int, ...], bool], list[Pair]] = {}
    for a, b in family:
        seeds = tuple(sorted(cells[a].values.keys() & cells[b].values.keys()))
        if len(seeds) >= FEWEST:
            alike.setdefault((seeds, _same(cells[a], cells[b], seeds)), []).append((a, b))
    found: dict[Pair, Evidence] = {}
    for (seeds, by_example), chosen in alike.items():
        study = {name: SeedScores(
            np.array([cell.values[seed] for seed in seeds]),
            np.stack([cell.examples[seed].to_numpy() for seed in seeds])
            if by_example and cell.examples.keys() >= set(seeds) else None, cell.clustered)
            for name, cell in cells.items() if cell.values.keys() >= set(seeds)}
        found |= evidence_of(study, chosen, resolution, overlap)
    return found


def _same(a: CellMetric, b: CellMetric, seeds: Sequence[int]) -> bool:
    """True where both tell what each of the same examples adds, for all these seeds."""
    return a.same_examples(b) and all(seed in cell.examples for seed in seeds for cell in (a, b))


def _pair(a: CellMetric, b: CellMetric, found: Evidence | None, resolution: float, metric: str,
          level: float, overlap: float) -> Compared:
    common = sorted(a.values.keys() & b.values.keys())
    if not common:
        return Compared(None, None, None)
    seeds = examples = decides = None
    if found is not None:
        seeds = over_seeds([a.values[s] for s in common], [b.values[s] for s in common],
                           resolution, overlap=overlap).within(limits(metric))
    if _same(a, b, common):
        table = np.stack([a.examples[s].to_numpy() - b.examples[s].to_numpy() for s in common])
        examples = over_examples(table, a.clustered).within(limits(metric))
    if found is not None:
        decides = seeds if found.test == OVER_SEEDS else \
            _result(found, a, b, common).within(limits(metric))
    within = math.inf if found is None else found.equal_within(level)
    return Compared(decides, seeds, examples, equal_within=within)


def _result(found: Evidence, a: CellMetric, b: CellMetric, seeds: Sequence[int]) -> PairedResult:
    """The deciding test's result, with Cohen's d over examples, or over seeds without them."""
    if found.examples:
        values = np.mean([a.examples[s].to_numpy() - b.examples[s].to_numpy() for s in seeds], axis=0)
    else:
        values = np.array([a.values[s] - b.values[s] for s in seeds])
    return result(found, values)


def _decided(cells: Mapping[str, CellMetric], decision: Decision, metric: str, seeds: Sequence[int]
             ) -> dict[Pair, Compared]:
    """All pairs as a study that runs until it is decided looked at them."""
    def of_pair(pair: Pair) -> Compared:
        asked = decision.verdicts.get(pair)
        verdict = asked or decision.beside.get(pair)
        if verdict is None or (found := verdict.evidence) is None:
            return Compared(None, None, None, verdict=asked)
        a, b = (cells[name] for name in pair)
        decides = _result(found, a, b, seeds[:found.seeds])
        low, high = verdict.interval
        decides = replace(decides, low=low, high=high, p=verdict.p_differs)
        return Compared(decides.within(limits(metric)), None, None,
                        equal_within=verdict.equal_within, verdict=asked)

    return {pair: of_pair(pair) for pair in pairs(list(cells))}
