"""Whether the seeds can tell what was seen, and about how many would."""

from __future__ import annotations

import math
from typing import ClassVar

from scipy import stats

from ftlab.reports.comparison import Compared, Comparison
from ftlab.reports.diagnoses.base import Diagnosis, Finding, StudyHistory, each
from ftlab.reports.statistics.multiple_testing import FEWEST, LEVEL
from ftlab.reports.statistics.paired import PairedResult

POWER = 0.8
MOST = 200
"""Seeds beyond which nobody goes."""


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
        found = []
        for comparison in observed.comparisons:
            backbone, dataset = comparison.group
            where = f"{dataset} from {backbone}"
            counts = {cell.key.technique: len(cell.finished) for cell in observed.cells
                      if (cell.key.backbone, cell.key.dataset) == comparison.group
                      and cell.key.technique in comparison.means}
            few = {name: count for name, count in counts.items() if count < FEWEST}
            if few:
                found.append(Finding(
                    "warning", where, (),
                    f"{each([f'{name} has {_seeds(count)}' for name, count in few.items()])}; a "
                    "claim on techniques needs at least three",
                    "ftlab run with --seeds 0,1,2"))
            if needs := _needs(comparison):
                found.append(Finding(
                    "hint", where, (),
                    f"an estimate of what tells {comparison.best} from others: {'; '.join(needs)}",
                    "more seeds where few are needed; where many are, the techniques are alike "
                    "for most purposes, and costs decide"))
        return found


def _needs(comparison: Comparison) -> list[str]:
    """`from lora about 9 seeds instead of 3`, of those that stand beside the best."""
    level = LEVEL / max(1, len(comparison.pairs))
    found = []
    for name in comparison.standing:
        pair = comparison.against_best(name)
        if name == comparison.best or pair is None or pair.seeds is None:
            continue
        found.append(f"from {name} {_needed(pair, pair.seeds, level)}")
    return found


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


def needed(seen: PairedResult, level: float, power: float = POWER) -> int | None:
    """Seeds with which a paired t test would find a difference like the observed one.

    By the noncentral t distribution (Cohen 1988, chapter 2); None where there is no difference,
    `MOST` + 1 for more than that.

    Args:
        seen: the test over seeds, with its effect.
        level: of the test, two-sided.
        power: chance to find it.
    """
    if seen.difference == 0:
        return None
    for count in range(FEWEST, MOST + 1):
        limit = float(stats.t.ppf(1 - level / 2, count - 1))
        shift = abs(seen.effect) * math.sqrt(count)
        if float(stats.nct.sf(limit, count - 1, shift)) >= power:
            return count
    return MOST + 1
