"""A study's seeds until its comparisons are decided: scores as arrays, and the decision on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from ftlab.statistics.moderated import SeedScores
from ftlab.statistics.multiple_testing import Pair
from ftlab.statistics.until_decided import decide
from ftlab.statistics.verdict import Decision, Rule
from ftlab.studies.seeds import UntilDecided
from ftlab.tracking.cell_metric import CellMetric, in_same_clusters
from ftlab.tracking.metric_range import is_percent


def rule_of(until: UntilDecided, metric: str, overlap: float = 0.0) -> Rule:
    """The rule with its margin in the metric's own unit, not the printed one."""
    return Rule(until.margin / (100 if is_percent(metric) else 1), until.first, until.most,
                overlap)


def questions(techniques: Sequence[str], baseline: str) -> list[Pair]:
    """Pairs that are to be decided, in the study's order: with the baseline, or all without one."""
    pairs = list(combinations(techniques, 2))
    return [pair for pair in pairs if baseline in pair] if baseline in techniques else pairs


def decided(cells: Mapping[str, CellMetric], until: UntilDecided, metric: str, baseline: str,
            seconds: Mapping[str, float] | None = None, failed: Mapping[str, str] | None = None,
            overlap: float = 0.0) -> Decision:
    """Decide the comparisons of one backbone and data set.

    Args:
        cells: by technique, in the study's order; those that have not begun are without values.
        until: of the study.
        metric: compared.
        baseline: of the study; empty for none.
        seconds: of a run, by technique.
        failed: techniques of which a run failed, and why.
        overlap: of the seeds' training sets.
    """
    cells = dict(zip(cells, in_same_clusters(list(cells.values())), strict=True))
    pairs = questions(list(cells), baseline)
    beside = [pair for pair in combinations(cells, 2) if pair not in pairs]
    by_example = comparable(list(cells.values()))
    scores = {name: {place: one_seed(cell, seed, by_example)
                     for place, seed in enumerate(until.numbers) if seed in cell.values}
              for name, cell in cells.items()}
    return decide(scores, pairs, rule_of(until, metric, overlap), seconds, failed, beside)


def comparable(cells: Sequence[CellMetric]) -> bool:
    """True where all runs of all cells tell what each example adds, of the same examples."""
    if not any(cell.values for cell in cells):
        return False
    whole = all(seed in cell.examples for cell in cells for seed in cell.values)
    first = next(cell for cell in cells if cell.values)
    return whole and all(first.same_examples(cell) for cell in cells if cell.values)


def one_seed(cell: CellMetric, seed: int, by_example: bool) -> SeedScores:
    """A cell's scores of one seed."""
    examples = cell.examples[seed].to_numpy()[None] if by_example else None
    return SeedScores(np.array([cell.values[seed]]), examples, cell.clustered)
