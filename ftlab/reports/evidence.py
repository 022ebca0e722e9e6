"""What the store holds of a cell for comparison: a metric a seed, and what each example adds."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ftlab.tracking.records import CellKey, CellRecord, RunRecord
from ftlab.tracking.tracker import Tracker

Contributions = Callable[[str, Mapping[str, Sequence[Any]]], NDArray[np.float64] | None]
"""A task's `contributions`."""


@dataclass(frozen=True)
class Measured:
    """One cell's metric.

    Attributes:
        key: the cell.
        values: by seed, of finished runs that have it.
        examples: by seed, what each test example adds to it, by the example's id; seeds whose
            predictions are missing, or do not tell, are left out.
    """

    key: CellKey
    values: dict[int, float]
    examples: dict[int, pd.Series] = field(default_factory=dict)


def measured(record: CellRecord, metric: str, tracker: Tracker | None,
             contributions: Contributions | None) -> Measured:
    """Read a cell's metric of the test split.

    Args:
        record: from the store.
        metric: with its split, as `test/accuracy`.
        tracker: where the predictions are; None leaves them unread.
        contributions: of the cell's task; None likewise.
    """
    values = {run.seed: run.metrics[metric] for run in record.finished
              if math.isfinite(run.metrics.get(metric, math.nan))}
    found: dict[int, pd.Series] = {}
    split, _, name = metric.partition("/")
    for run in record.finished:
        if tracker is None or contributions is None or run.seed not in values:
            continue
        records = predictions(tracker, run, split)
        added = None if records is None else contributions(name, records)
        if records is not None and added is not None and _usable(added):
            found[run.seed] = pd.Series(added, index=pd.Index(records["id"]))
    return Measured(record.key, values, found)


def predictions(tracker: Tracker, run: RunRecord, split: str = "test") -> dict[str, list] | None:
    """A run's prediction records, by column; None where it has none."""
    stored = tracker.file(run, f"predictions/{split}.parquet")
    if stored is None:
        return None
    found: dict[str, list] = pq.read_table(io.BytesIO(stored)).to_pydict()
    return found


def _usable(added: NDArray[np.float64]) -> bool:
    return len(added) > 1 and bool(np.isfinite(added).all())
