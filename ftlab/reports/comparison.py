"""The best technique of a group, and those that the data do not separate from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ftlab.reports.cell_summary import CellSummary
from ftlab.statistics.multiple_testing import FEWEST, LEVEL, Pair, holm, pairs, standing
from ftlab.statistics.paired import PairedResult, over_both, over_examples, over_seeds
from ftlab.statistics.ranks import RankComparison, rank
from ftlab.statistics.seed_summary import summarise
from ftlab.statistics.two_studies import step
from ftlab.tracking import gc_pause
from ftlab.tracking.cell_metric import CellMetric, Contributions, measured
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
    """

    decides: PairedResult | None
    seeds: PairedResult | None
    examples: PairedResult | None
    p: float = math.nan

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
    """

    group: tuple[str, str]
    means: dict[str, float]
    best: str
    standing: tuple[str, ...]
    pairs: dict[Pair, Compared]
    higher_is_better: bool
    baseline: str = ""
    against: dict[str, Compared] = field(default_factory=dict)

    @property
    def tested(self) -> bool:
        """True where any pair was tested."""
        return any(pair.decides is not None for pair in self.pairs.values())

    def against_best(self, technique: str) -> Compared | None:
        """The pair of the best and another."""
        return self.pairs.get((self.best, technique)) or self.pairs.get((technique, self.best))

    def worse_by(self, technique: str) -> float:
        """How much better the best is, never negative."""
        return abs(self.means[self.best] - self.means[technique])


def compare(group: tuple[str, str], cells: Sequence[CellMetric], higher_is_better: bool,
            baseline: str = "", metric: str = "") -> Comparison:
    """Test every pair of a group's complete cells: one family, one correction.

    Args:
        group: backbone and data set.
        cells: complete ones, in the study's order.
        higher_is_better: of the metric.
        baseline: a technique's name, against which the others are a second family.
        metric: its name, which says between what its differences lie; without one nothing does.
    """
    by_name = {cell.key.technique: cell for cell in cells if cell.values}
    means = {name: summarise(cell.values.values()).mean for name, cell in by_name.items()}
    resolution = step(value for cell in by_name.values() for value in cell.values.values())
    tested = {(a, b): _pair(by_name[a], by_name[b], resolution, metric)
             for a, b in pairs(list(by_name))}
    whole = _corrected(tested)
    p_values = {pair: result.p for pair, result in whole.items()}
    best, kept = standing(means, p_values, higher_is_better) if means else ("", [])
    if whole and all(pair.decides is None for pair in whole.values()):
        kept = []
    with_baseline = _corrected(
        {pair: result for pair, result in tested.items() if baseline in pair})
    against = {a if b == baseline else b: result for (a, b), result in with_baseline.items()}
    return Comparison(group, means, best, tuple(kept), whole, higher_is_better,
                      baseline if baseline in means else "", against)


@gc_pause.what_is_stays()  # statsmodels asks for a collection with every family
def compared(
    rows: Sequence[CellSummary],
    records: Sequence[CellRecord],
    metric: str,
    higher_is_better: bool,
    tracker: Tracker | None = None,
    contributions: Mapping[str, Contributions] | None = None,
    baseline: str = "",
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
    """
    by_key = {record.key: record for record in records}
    of_tasks = contributions or {}
    comparisons: dict[tuple[str, str], Comparison] = {}
    remarks: dict[CellKey, str] = {}
    for group in dict.fromkeys(row.group for row in rows):
        complete = [row for row in rows if row.group == group and not row.note]
        alone = len(complete) < 2  # nobody to compare with: nothing needs to be read
        cells = [measured(by_key[row.key], metric, None if alone else tracker,
                          of_tasks.get(row.key.dataset)) for row in complete]
        remarks |= {cell.key: _remark(cell) for cell in cells}
        comparisons[group] = compare(group, cells, higher_is_better, baseline, metric)
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
    for comparison in comparisons:
        if comparison.means:
            backbone, dataset = comparison.group
            scores.setdefault(backbone, {})[dataset] = comparison.means
    rankings = {backbone: rank(means, higher_is_better) for backbone, means in scores.items()}
    return {backbone: ranking for backbone, ranking in rankings.items() if ranking is not None}


def _pair(a: CellMetric, b: CellMetric, resolution: float, metric: str) -> Compared:
    common = sorted(a.values.keys() & b.values.keys())
    if not common:
        return Compared(None, None, None)
    seeds = None
    if len(common) >= FEWEST:
        seeds = over_seeds([a.values[s] for s in common], [b.values[s] for s in common],
                           resolution).within(limits(metric))
    if not a.same_examples(b) or any(s not in c.examples for s in common for c in (a, b)):
        return Compared(seeds, seeds, None)
    table = np.stack([a.examples[s].to_numpy() - b.examples[s].to_numpy() for s in common])
    examples = over_examples(table).within(limits(metric))
    return Compared(None if seeds is None else over_both(table).within(limits(metric)), seeds, examples)
