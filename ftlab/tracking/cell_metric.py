"""A cell's metric as the store has it: a value per seed, and what each test example adds to it."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ftlab.statistics.clusters import CLUSTER, by_cluster
from ftlab.tracking import artifacts
from ftlab.tracking.artifacts import DamagedArtifact
from ftlab.tracking.records import CellKey, CellRecord, RunRecord
from ftlab.tracking.tracker import Tracker

Contributions = Callable[[str, Mapping[str, Sequence[Any]]], NDArray[np.float64] | None]
"""A task's `contributions`."""


@dataclass(frozen=True)
class CellMetric:
    """One cell's metric.

    Attributes:
        key: the cell.
        values: by seed, of finished runs that have it.
        examples: by seed, what each test example adds to it, by the example's id; what each
            cluster adds, by the ids of its examples, where some belong together. Seeds whose
            predictions are missing, or do not hold it, are left out.
        damaged: runs whose predictions are not what they wrote, and that are left out too.
        clustered: number of examples where `examples` has clusters of them; 0 where it has none.
    """

    key: CellKey
    values: dict[int, float]
    examples: dict[int, pd.Series] = field(default_factory=dict)
    damaged: tuple[DamagedArtifact, ...] = ()
    clustered: int = 0

    def same_examples(self, other: CellMetric) -> bool:
        """True where all runs of both saw the same examples in the same order, in the same clusters."""
        seen = [series.index for cell in (self, other) for series in cell.examples.values()]
        return all(index.equals(seen[0]) for index in seen)


def measured(record: CellRecord, metric: str, tracker: Tracker | None,
             contributions: Contributions | None) -> CellMetric:
    """Read a cell's metric of the test split.

    Args:
        record: from the store.
        metric: with its split, as `test/accuracy`.
        tracker: where the predictions are; None leaves them unread.
        contributions: of the cell's task; None leaves them unread, too.
    """
    values = {run.seed: run.metrics[metric] for run in record.finished
              if math.isfinite(run.metrics.get(metric, math.nan))}
    examples: dict[int, pd.Series] = {}
    damaged, clustered = [], 0
    split, name = split_and_name(metric)
    for run in record.finished:
        if tracker is None or contributions is None or run.seed not in values:
            continue
        try:
            records = predictions(tracker, run, split)
        except DamagedArtifact as error:
            damaged.append(error)
            continue
        added = None if records is None else contributions(name, records)
        if records is None or added is None:
            continue
        units = _units(added, records["id"], records.get(CLUSTER))
        if _usable(units):
            examples[run.seed] = units
            clustered = max(clustered, len(added) * (len(units) < len(added)))
    return CellMetric(record.key, values, examples, tuple(damaged), clustered)


def split_and_name(metric: str) -> tuple[str, str]:
    """The split of a metric as prediction records name it, and the metric's name without it."""
    split, _, name = metric.partition("/")
    return {"val": "validation"}.get(split, split), name


def predictions(tracker: Tracker, run: RunRecord, split: str = "test"
                ) -> dict[str, list[Any]] | None:
    """A run's prediction records, by column; None where it has none.

    Raises:
        DamagedArtifact: they are not what the run wrote.
    """
    name = f"predictions/{split}.parquet"
    stored = artifacts.whole(tracker, run, name)
    if stored is None:
        return None
    try:
        columns: dict[str, list[Any]] = pq.read_table(io.BytesIO(stored)).to_pydict()
    except (pa.ArrowException, OSError, ValueError) as error:  # of a run without a record of it
        raise DamagedArtifact(run, name, (str(error).splitlines() or ["unreadable"])[0]) from error
    return columns


def in_same_clusters(cells: Sequence[CellMetric]) -> list[CellMetric]:
    """The cells of one data set, those of runs that recorded no clusters in the clusters of the others.

    A store may hold runs from before ftlab recorded any.
    """
    read = [series.index for cell in cells for series in cell.examples.values()]
    known = next((index for index in read if isinstance(index[0], tuple)), ())
    owner = {name: number for number, members in enumerate(known) for name in members}

    def put(series: pd.Series) -> pd.Series:
        ids = series.index.tolist()
        return _units(series.to_numpy(), ids, list(map(owner.get, ids))) if {*ids} == {*owner} else series

    made = [{seed: put(series) for seed, series in cell.examples.items()} for cell in cells]
    return [replace(cell, examples=examples, clustered=len(owner)) if any(
        examples[seed] is not series for seed, series in cell.examples.items()) else cell
        for cell, examples in zip(cells, made, strict=True)]


def _units(added: NDArray[np.float64], ids: Sequence[str], clusters: Sequence[Any] | None) -> pd.Series:
    """Independent units: each example by its id, or each cluster by the ids of its examples."""
    if clusters is None:
        return pd.Series(added, index=pd.Index(ids))
    members: dict[Any, list[str]] = {}
    for name, cluster in zip(ids, clusters, strict=True):
        members.setdefault(cluster, []).append(name)
    return pd.Series(by_cluster(added[None], clusters)[0],
                     index=pd.Index(list(map(tuple, members.values())), tupleize_cols=False))


def _usable(units: pd.Series) -> bool:
    return len(units) > 1 and bool(np.isfinite(units).all())
