"""Comparisons that are not decided, and the differences that so many seeds would find."""

from __future__ import annotations

import math
from typing import ClassVar

from ftlab.reports.comparison import Comparison
from ftlab.reports.diagnoses.base import Diagnosis, Finding, StudyHistory
from ftlab.reports.metric_text import digits
from ftlab.statistics.clusters import units
from ftlab.statistics.multiple_testing import FEWEST, LEVEL
from ftlab.statistics.power import Noise, smallest_found
from ftlab.tracking.metric_range import is_percent, limits
from ftlab.wording import listed

MORE = (10, 20)
"""Numbers of seeds beside the study's own."""


class TooFewSeeds(Diagnosis):
    """Techniques are not told from each other; how large would a difference have to be?"""

    title: ClassVar[str] = "Too few seeds to tell"
    rule: ClassVar[str] = (
        "Fewer than three seeds; or a technique is not significantly different from the baseline, or "
        "without one from the best. Beside it stands the smallest difference that so many seeds would "
        "find in 80 of 100 studies, at the level that Holm's correction begins with: from the variance "
        "over seeds, pooled over the study's techniques, and from what the draw of the test examples "
        "adds, which no number of seeds takes away. Of a technique that scatters more than the others "
        "a larger difference is needed. How many seeds would tell the observed difference is not said: "
        "from few seeds such a number may be wrong by a factor of ten.")

    def find(self, observed: StudyHistory) -> list[Finding]:
        findings = []
        for comparison in observed.comparisons:
            backbone, dataset = comparison.group
            where = f"{dataset} from {backbone}"
            counts = {cell.key.technique: len(cell.finished) for cell in observed.cells
                      if (cell.key.backbone, cell.key.dataset) == comparison.group
                      and cell.key.technique in comparison.means}
            few = {name: count for name, count in counts.items() if count < FEWEST}
            if few:
                findings.append(Finding(
                    "warning", where, (),
                    f"{listed([f'{name} has {_seeds(count)}' for name, count in few.items()])}; a "
                    "claim on techniques needs at least three",
                    "ftlab run with --seeds 0,1,2"))
            noise, names = observed.noise.get(comparison.group), _undecided(comparison)
            if names and noise is not None and comparison.rule is None:  # else a verdict says more
                findings.append(Finding(
                    "hint", where, (), _found(comparison, observed.metric, noise, names),
                    "more seeds or, where any number finds too little, a larger test split; where such "
                    "differences do not matter the techniques are alike, and costs decide"))
        return findings


def _undecided(comparison: Comparison) -> list[str]:
    """Those that were tested against the baseline, else the best, without a claim."""
    pairs = comparison.against or {
        name: pair for name in comparison.standing
        if name != comparison.best and (pair := comparison.against_best(name)) is not None}
    return [name for name, pair in pairs.items() if pair.decides is not None and not pair.differs]


def _found(comparison: Comparison, metric: str, noise: Noise, names: list[str]) -> str:
    """`lora is not told from full; of 6 pairs 80 of 100 studies would find ... with 3 seeds, ...`."""
    pairs = comparison.questions
    level, least = LEVEL / len(pairs), min(_common(comparison))
    counts = [least, *(count for count in MORE if count > least)]
    sizes = [smallest_found(noise, count, level) for count in counts]
    low, high = limits(metric)
    number = digits(metric, [size for size in sizes if size <= high - low])
    unit = " points" if is_percent(metric) else ""
    each = [f"{f'{number(size)}{unit}' if size <= high - low else 'none that there can be'} with {count}"
            for count, size in zip(counts, sizes, strict=True)]
    other = comparison.baseline if comparison.against else comparison.best
    text = (f"{listed(names)} {'is' if len(names) == 1 else 'are'} not told from {other}; the smallest "
            f"difference that 80 of 100 studies of {len(pairs)} pair{'s' * (len(pairs) > 1)} would find "
            f"is {each[0]} seeds")
    text += "".join(f", {one}" for one in each[1:])
    if noise.examples:
        text += (f", and {number(smallest_found(noise, math.inf, level))}{unit} with any number on "
                 f"{units(noise.count, noise.clustered, 'test examples')}")
    return text


def _common(comparison: Comparison) -> list[int]:
    """Seeds of each pair that was tested."""
    return [pair.decides.seeds for pair in comparison.pairs.values() if pair.decides is not None]


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"
