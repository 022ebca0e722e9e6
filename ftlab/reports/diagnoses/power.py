"""Comparisons with too few seeds to decide, and about how many would do."""

from __future__ import annotations

from typing import ClassVar

from ftlab.reports.comparison import Compared, Comparison
from ftlab.reports.diagnoses.base import Diagnosis, Finding, StudyHistory
from ftlab.statistics.multiple_testing import FEWEST, LEVEL
from ftlab.statistics.paired import PairedResult
from ftlab.statistics.power import MOST, needed
from ftlab.wording import listed


class TooFewSeeds(Diagnosis):
    """The best is not told from others, and more seeds might."""

    title: ClassVar[str] = "Too few seeds to tell"
    rule: ClassVar[str] = (
        "Fewer than three seeds; or the best is not significantly better than another. The number "
        "of seeds is an estimate: that with which a paired t test finds a difference as large as "
        "the observed one, with the observed spread over seeds, in 80 of 100 studies, at the "
        "level that Holm's correction begins with; from few seeds it may be far off. A larger test "
        "split is asked for where these trained models do not differ significantly over examples.")

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
            if needs := _needs(comparison):
                findings.append(Finding(
                    "hint", where, (),
                    f"an estimate of what tells {comparison.best} from others: {'; '.join(needs)}",
                    "more seeds where few are needed; where many are, the techniques are alike "
                    "for most purposes, and costs decide"))
        return findings


def _needs(comparison: Comparison) -> list[str]:
    """`from lora about 9 seeds instead of 3`, of those that stand beside the best."""
    level = LEVEL / max(1, len(comparison.pairs))
    needs = []
    for name in comparison.standing:
        pair = comparison.against_best(name)
        if name == comparison.best or pair is None or pair.seeds is None:
            continue
        needs.append(f"from {name} {_needed(pair, pair.seeds, level)}")
    return needs


def _needed(pair: Compared, seen: PairedResult, level: float) -> str:
    count = needed(seen, level)
    if count is None:
        return "no number of seeds, since their means are the same"
    few = pair.examples is not None and pair.examples.p > level
    if count > MOST:
        return f"more than {MOST} seeds"
    if count <= seen.seeds:
        return "a larger test split" if few else "a seed more"
    return f"about {count} seeds instead of {seen.seeds}{' and a larger test split' if few else ''}"


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"
