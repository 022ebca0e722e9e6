"""Finished models measured with quantised weights, each against itself: the table and its tests."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ftlab.reports.comparison import Compared, Comparison, compare
from ftlab.reports.metric_text import cost, digits
from ftlab.reports.study_results import StudyResults
from ftlab.reports.table import (
    NONE,
    Column,
    Quantity,
    Table,
    group_title,
    plain,
    quantity,
    tabulate,
)
from ftlab.statistics.multiple_testing import FEWEST, holm
from ftlab.statistics.paired import PairedResult
from ftlab.statistics.seed_summary import Summary, summarise
from ftlab.tracking.cell_metric import CellMetric, measured
from ftlab.tracking.metric_range import is_percent
from ftlab.tracking.records import CellKey

_DISK = re.compile(r"cost/disk_(.+)_bytes")
MERGED = "cost/latency_merged_seconds"
ABOUT = (
    ("Quantised", ("The finished model with the weights of its blocks' linear layers and convolutions rounded to "
     "integers, merged where its technique merges; nothing is trained again, and all else stays as it is.")),
    ("Difference", ("From the same models before, over the same seeds and examples, with its 95% interval. P-values "
     f"have Holm's correction over what a technique is quantised to; below {FEWEST} seeds they are over examples "
     "alone, of these trained models.")),
    ("Size, latency", ("Bytes of the model in a file, 4-bit weights packed; median time of one example with torchao's "
     "portable kernels, which unpack the weights for each product: what needs less room need not be faster.")),
)


@dataclass(frozen=True)
class QuantizedRow:
    """A cell's models as they are, or quantised.

    Attributes:
        key: of the cell.
        name: of what they are quantised to; empty for the models themselves.
        summary: of the metric over seeds.
        compared: against the models themselves; None for these, and where nothing could be compared.
        disk: bytes, a mean over seeds.
        latency: seconds, likewise.
    """

    key: CellKey
    name: str
    summary: Summary
    compared: Compared | None
    disk: float
    latency: float

    @property
    def label(self) -> str:
        """`lora`, or `lora@int8`."""
        return f"{self.key.technique}@{self.name}" if self.name else self.key.technique

    @property
    def test(self) -> PairedResult | None:
        """The test that is shown: the one that decides, or of few seeds the one over examples."""
        return None if self.compared is None else self.compared.decides or self.compared.examples

    @property
    def p(self) -> float:
        """P-value of that test, corrected where it decides."""
        if self.compared is None or self.test is None:
            return math.nan
        return self.compared.p if self.compared.decides else self.test.p


@dataclass(frozen=True)
class Quantized:
    """A study's quantised models.

    Attributes:
        table: each cell and what it is quantised to.
        lines: as numbers in base units, a mapping a row.
        comparisons: of each cell, quantised against not, as `tests_csv` reads them.
    """

    table: Table
    lines: list[dict[str, Any]]
    comparisons: tuple[Comparison, ...]


def quantized(results: StudyResults) -> Quantized | None:
    """The quantised models of a study; None where it has none.

    Args:
        results: compared.
    """
    metric = results.named(f"test/{results.metric.partition('/')[2]}")
    rows: list[QuantizedRow] = []
    comparisons: list[Comparison] = []
    for cell in results.rows:
        names = dict.fromkeys(found[1] for run in results.runs(cell.key) for name in run.metrics
                              if (found := _DISK.fullmatch(name)))
        if names:
            made = _rows(results, cell.key, metric, list(names))
            rows += made
            comparisons.append(_comparison(results, cell.key, metric, list(names)))
            against = comparisons[-1].against
            rows[-len(names):] = [replace(row, compared=against.get(row.label)) for row in made[1:]]
    if not rows:
        return None
    return Quantized(_table(results, metric, rows), [_line(row, metric) for row in rows], tuple(comparisons))


def _rows(results: StudyResults, key: CellKey, metric: str, names: Sequence[str]) -> list[QuantizedRow]:
    def mean(cost: str) -> float:
        return summarise(results.values(key, cost).values()).mean

    def scores(name: str) -> Summary:
        return summarise(results.values(key, _of(metric, name)).values())

    latency = MERGED if results.values(key, MERGED) else "cost/latency_seconds"
    itself = QuantizedRow(key, "", scores(""), None, mean("cost/disk_bytes"), mean(latency))
    return [itself, *(QuantizedRow(key, name, scores(name), None, mean(f"cost/disk_{name}_bytes"),
                                   mean(f"cost/latency_{name}_seconds")) for name in names)]


def _comparison(results: StudyResults, key: CellKey, metric: str, names: Sequence[str]) -> Comparison:
    """A cell's quantised models, each against the models themselves: one family, one correction.

    Each is tested by itself: with fewer bits differences vary far more, and a variance that is
    pooled over all would be wrong for each.
    """
    record, task = results.records[key], results.contributions.get(key.dataset)

    def read(name: str) -> CellMetric:
        found = measured(record, _of(metric, name), results.tracker, task)
        label = f"{key.technique}@{name}" if name else key.technique
        return replace(found, key=replace(key, technique=label))

    itself, upwards = read(""), results.direction(key.dataset, metric) is not False
    # quantised less unquantised, so that a loss is below zero
    found = [compare((key.backbone, key.dataset), [read(name), itself], upwards, key.technique, metric,
                     overlap=record.training_share) for name in names]
    pairs = {pair: compared for each in found for pair, compared in each.pairs.items()}
    p_values = holm({pair: math.nan if each.decides is None else each.decides.p
                     for pair, each in pairs.items()})
    pairs = {pair: replace(each, p=p_values[pair]) for pair, each in pairs.items()}
    return replace(found[0], means={name: mean for each in found for name, mean in each.means.items()},
                   pairs=pairs, against={pair[0]: each for pair, each in pairs.items()})


def _of(metric: str, name: str) -> str:
    """The name of a metric of the quantised models; of the models themselves for no name."""
    return f"test.{name}/{metric.partition('/')[2]}" if name else metric


def _table(results: StudyResults, metric: str, rows: Sequence[QuantizedRow]) -> Table:
    number = digits(metric, [row.summary.mean for row in rows])
    size, size_unit = cost("_bytes", [row.disk for row in rows])
    time, time_unit = cost("latency_seconds", [row.latency for row in rows])
    percent = is_percent(metric)

    def difference(row: QuantizedRow) -> str:
        test = row.test
        if test is None or not math.isfinite(test.difference):
            return NONE
        low, high = number(test.low), number(test.high)
        return Quantity(number(test.difference), beside=f"{low} to {high}" if math.isfinite(test.low) else "")

    columns: tuple[Column[QuantizedRow], ...] = (
        Column(f"{metric}{', %' if percent else ''}: mean ± std (n)", lambda row: quantity(row.summary, number)),
        Column(f"difference{', points' if percent else ''} (95% interval)", difference),
        Column("p", lambda row: plain(row.p, _p)),
        Column(f"size on disk, {size_unit}", lambda row: plain(row.disk, size)),
        Column(f"latency, {time_unit}", lambda row: plain(row.latency, time)),
    )
    return tabulate(rows, columns, name=lambda row: row.label,
                    title=lambda row: group_title((row.key.backbone, row.key.dataset)),
                    caption=f"Study {results.study}, quantised afterwards: {metric} on the test split.",
                    about=ABOUT)


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _line(row: QuantizedRow, metric: str) -> dict[str, Any]:
    test = row.test
    tested = {} if test is None else {
        "difference": test.difference, "ci_low": test.low, "ci_high": test.high, "test": test.test, "p": row.p}
    return {"backbone": row.key.backbone, "dataset": row.key.dataset, "technique": row.key.technique,
            "quantized": row.name, "metric": metric, "mean": row.summary.mean, "std": row.summary.std,
            "n": row.summary.n, "difference": "", "ci_low": "", "ci_high": "", "test": "", "p": "", **tested,
            "disk_bytes": row.disk, "latency_seconds": row.latency}
