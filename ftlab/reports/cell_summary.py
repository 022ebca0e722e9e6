"""The numbers of each cell in the table."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ftlab.errors import InputError
from ftlab.statistics.seed_summary import Summary, summarise
from ftlab.studies.seeds import UntilDecided
from ftlab.tracking.metric_range import limits
from ftlab.tracking.records import CellKey, CellRecord

_WORDS = {"FAILED": "failed", "KILLED": "killed", "RUNNING": "running", "SCHEDULED": "waiting"}


@dataclass(frozen=True)
class CellSummary:
    """One cell.

    Attributes:
        cell_id: its parent run; empty where it was never opened.
        summary: of the metric over the finished seeds.
        seeds: how many are expected.
        trainable, total: parameters; nan where not measured, as the other costs.
        seconds: mean training time of a run.
        memory: mean peak memory of training, bytes.
        note: what is missing or failed; empty for a complete cell.
        values: of the metric, one a finished seed that has it.
        rank: 1 for the best mean of its backbone and data set; None for an incomplete cell.
        stands: whether it is the best of them, or not significantly worse.
        remark: a sentence for readers, of a cell that is compared all the same.
        collapsed: how many seeds learned next to nothing beside the best; None where guessing has
            no score that is known.
    """

    key: CellKey
    cell_id: str
    summary: Summary
    seeds: int
    trainable: float
    total: float
    seconds: float
    memory: float
    note: str
    values: tuple[float, ...] = ()
    rank: int | None = None
    stands: bool = False
    remark: str = ""
    collapsed: int | None = None

    @property
    def footnote(self) -> str:
        """Its note and its remark; empty for a cell that needs none."""
        return "; ".join(filter(None, (self.note, self.remark)))

    @property
    def median(self) -> float:
        """The median of the values; nan without one, or where one is not finite."""
        whole = self.values and math.isfinite(self.summary.mean)
        return statistics.median(self.values) if whole else math.nan

    @property
    def group(self) -> tuple[str, str]:
        """Only cells of one backbone and data set are compared."""
        return self.key.backbone, self.key.dataset

    @property
    def percent(self) -> float:
        """Trainable parameters in percent of all."""
        return 100 * self.trainable / self.total if self.total else math.nan


def build(
    cells: Sequence[CellKey],
    records: Iterable[CellRecord],
    metric: str,
    higher_is_better: bool,
    check: bool = True,
    until: UntilDecided | None = None,
) -> list[CellSummary]:
    """A row a cell, in the given order within its group; groups as they first appear.

    Where a study runs until it is decided, a cell lacks nothing once it has the first seeds, but
    for what failed.

    Raises:
        InputError: runs are finished, and none has the metric, unless `check` is off.
    """
    by_key = {record.key: record for record in records}
    if check:
        check_metric([by_key[key] for key in cells if key in by_key], metric)
    rows = [_row(key, by_key.get(key), metric, until) for key in cells]
    groups = {group: place for place, group in enumerate(dict.fromkeys(row.group for row in rows))}
    rows = sorted(rows, key=lambda row: groups[row.group])
    ranks = _ranks(rows, higher_is_better)
    return [replace(row, rank=ranks.get(row.key)) for row in rows]


def check_metric(records: Iterable[CellRecord], metric: str) -> None:
    """Refuse a metric that no finished run has, where any is finished.

    Raises:
        InputError: with the names that there are.
    """
    names = {name for record in records for run in record.finished for name in run.metrics}
    if names and metric not in names:
        split = metric.partition("/")[0]
        alike = sorted(n for n in names if n.startswith(f"{split}/")) or sorted(names)
        raise InputError(f"metric {metric}: no finished run has it",
                         f"there are: {', '.join(alike)}")


def _row(key: CellKey, record: CellRecord | None, metric: str,
         until: UntilDecided | None) -> CellSummary:
    if record is None:
        nan = math.nan
        return CellSummary(key, "", summarise([]), 0, nan, nan, nan, nan, "not run")
    if until is not None:
        record = begun(record, until)
    done = record.finished

    def mean(name: str) -> float:
        return summarise(run.metrics[name] for run in done if name in run.metrics).mean

    values = tuple(run.metrics[metric] for run in done if metric in run.metrics)
    return CellSummary(
        key=key,
        cell_id=record.cell_id,
        summary=summarise(values, limits(metric)),
        seeds=len(record.seeds),
        trainable=mean("cost/trainable_parameters"),
        total=mean("cost/total_parameters"),
        seconds=mean("cost/train_seconds"),
        memory=mean("cost/peak_memory_bytes"),
        note=_note(record, metric),
        values=values,
    )


def begun(record: CellRecord, until: UntilDecided) -> CellRecord:
    """A cell of a study that runs until it is decided, without what waits or was interrupted."""
    runs = tuple(run for run in record.runs if run.status in ("FINISHED", "FAILED"))
    seeds = sorted({*until.numbers[:until.first], *(run.seed for run in runs)})
    return replace(record, runs=runs, seeds=tuple(seeds))


def _note(record: CellRecord, metric: str) -> str:
    """`2 of 3 seeds; 1 failed: non-finite loss`; empty where nothing is missing."""
    return "; ".join(filter(None, (gaps(record), missing(record, metric))))


def gaps(record: CellRecord) -> str:
    """`2 of 3 seeds; 1 failed: non-finite loss`: which runs a cell lacks; empty for none."""
    done = record.finished
    parts = []
    if len(done) < len(record.seeds):
        parts.append(f"{len(done)} of {len(record.seeds)} seeds")
    others = Counter((r.status, r.reason) for r in record.runs if r.status != "FINISHED")
    for (status, reason), count in sorted(others.items()):
        word = _WORDS.get(status, status.lower())
        parts.append(f"{count} {word}: {reason}" if reason else f"{count} {word}")
    never = len(set(record.seeds) - {run.seed for run in record.runs})
    if never:
        parts.append(f"{never} not run")
    return "; ".join(parts)


def missing(record: CellRecord, metric: str) -> str:
    """Name finished runs without a finite value of a metric; empty for none."""
    broken = [r.seed for r in record.finished
              if not math.isfinite(r.metrics.get(metric, math.nan))]
    if not broken:
        return ""
    return f"{metric} missing or not finite in seed {', '.join(map(str, broken))}"


def _ranks(rows: Sequence[CellSummary], higher_is_better: bool) -> dict[CellKey, int]:
    """Places among the complete cells of each group; equal means share the better one."""
    sign = -1 if higher_is_better else 1
    groups: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if not row.note:
            groups.setdefault(row.group, []).append(sign * row.summary.mean)
    for means in groups.values():
        means.sort()
    return {row.key: 1 + bisect_left(groups[row.group], sign * row.summary.mean)
            for row in rows if not row.note}
