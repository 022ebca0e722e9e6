"""Changes of the cells' metrics: one test per cell and metric, one correction over all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ftlab.errors import InputError
from ftlab.reports.drift.read_results import CellResult, ComparedStudy, Names
from ftlab.statistics.multiple_testing import LEVEL, corrected
from ftlab.statistics.paired import PairedResult
from ftlab.statistics.seed_summary import Summary, summarise
from ftlab.statistics.two_studies import moved, same, step
from ftlab.tracking.metric_range import limits
from ftlab.wording import did_you_mean


@dataclass(frozen=True)
class MetricChange:
    """One metric of one cell, in two studies.

    Attributes:
        old, new: over the seeds of each.
        test: of new - old; None where a side has fewer than three seeds.
        p: of the test, corrected by Holm over the family; nan without a test.
        equal: both have the same seeds, and the same numbers up to rounding.
        lost: a side that has no number though its runs ended or failed, or seeds that now fail.
    """

    names: Names
    metric: str
    old: Summary
    new: Summary
    test: PairedResult | None
    p: float = math.nan
    equal: bool = False
    lost: str = ""

    @property
    def moved(self) -> bool:
        """Beyond noise, or gone."""
        return self.p <= LEVEL or bool(self.lost)

    @property
    def difference(self) -> float:
        """New - old, of the means."""
        return self.new.mean - self.old.mean

    @property
    def verdict(self) -> str:
        """One word, or some."""
        if self.lost:
            return self.lost
        if self.equal:
            return "equal"
        if self.test is None:
            return "untested"
        return "moved" if self.moved else "noise"


def movements(old: ComparedStudy, new: ComparedStudy, metrics: Sequence[str]) -> list[MetricChange]:
    """Test the cells that both have, in the order of the old.

    Args:
        old: one side.
        new: the other.
        metrics: those to test.
    """
    common = [names for names in old.cells if names in new.cells]
    least = {(dataset, metric): _step(old, new, dataset, metric)
             for dataset in {names[1] for names in common} for metric in metrics}
    changes = [_movement(names, metric, old.cells[names], new.cells[names], least[names[1], metric])
             for metric in metrics for names in common
             if any(metric in side.cells[names].values for side in (old, new))]
    adjusted = corrected([math.nan if m.test is None else m.test.p for m in changes])
    return [replace(m, p=p) for m, p in zip(changes, adjusted, strict=True)]


def chosen(old: ComparedStudy, new: ComparedStudy, asked: Sequence[str]) -> list[str]:
    """The metrics to test: those asked for, else what the studies report, else all of the test.

    Raises:
        InputError: no cell on one of the sides has one of them.
    """
    names = [{name for cell in side.cells.values() for name in cell.values} for side in (old, new)]
    # a side whose runs all failed has no numbers, which is a finding and not a mistake
    both = sorted(set.intersection(*filter(None, names)) if any(names) else ())
    for name in asked:
        if name not in both:
            raise InputError(f"metric {name}: not on both sides", did_you_mean(name, both))
    reported = [name for name in dict.fromkeys((old.reported, new.reported)) if name in both]
    metrics = list(asked) or reported or [name for name in both if name.startswith("test/")]
    if not metrics:
        raise InputError(f"{old.label} and {new.label}: no test metric in common",
                         "compare results of finished runs; --metric names another metric")
    return metrics


def _step(old: ComparedStudy, new: ComparedStudy, dataset: str, metric: str) -> float:
    return step(value for side in (old, new) for names, cell in side.cells.items()
                if names[1] == dataset for value in cell.values.get(metric, {}).values())


def _movement(names: Names, metric: str, old: CellResult, new: CellResult, least: float) -> MetricChange:
    a, b = (cell.values.get(metric, {}) for cell in (old, new))
    equal = a.keys() == b.keys() and all(same(a[seed], b[seed]) for seed in a)
    test, ends = moved(a, b, least), limits(metric)
    return MetricChange(names, metric, summarise(a.values(), ends), summarise(b.values(), ends),
                    None if test is None else test.within(ends), equal=equal,
                    lost=_lost(old, new, a, b))


def _lost(old: CellResult, new: CellResult, a: Mapping[int, float], b: Mapping[int, float]) -> str:
    """Seeds that ran on both sides, and failed or gave no number on one."""
    def gone(there: Mapping[int, float], here: Mapping[int, float], cell: CellResult) -> list[int]:
        return [s for s in there if s not in here and cell.status.get(s, "MISSING") != "MISSING"]

    if seeds := gone(a, b, new):
        return f"seed {', '.join(map(str, seeds))} now fails"
    if seeds := gone(b, a, old):
        return f"seed {', '.join(map(str, seeds))} failed before"
    return ""
