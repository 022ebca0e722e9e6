"""Measuring a split: on one device, every example exactly once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader

from ftlab.backbones.base import TaskModel
from ftlab.errors import GuardFailed
from ftlab.tasks.base import Task

Placing = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Moves a batch to the device and precision of the model."""


def evaluate(
    model: TaskModel,
    loader: DataLoader[Any],
    task: Task,
    ids: Sequence[str],
    place: Placing,
) -> tuple[dict[str, float], dict[str, list[Any]]]:
    """Metrics and prediction records of one split.

    Args:
        model: in any mode; it is put into eval mode.
        loader: yields each of the split's examples once, in any order.
        task: loss, metrics, records.
        ids: the split's example ids, by `index`.
        place: see `Placing`.

    Returns:
        Metrics without split prefix, `loss` among them, and the records' columns in the order
        of `ids`.

    Raises:
        GuardFailed: an example came twice or not at all.
    """
    model.eval()
    metrics = task.metrics()
    total, positions = 0.0, []
    columns: dict[str, list[Any]] = {}
    with torch.inference_mode():
        for raw in loader:
            batch = place(raw)
            outputs = model(batch)
            target = batch["target"]
            total += float(task.loss(outputs, batch)) * len(batch["index"])
            metrics.to(outputs.device).update(outputs.float(), target)
            positions += batch["index"].tolist()
            for name, values in task.records(outputs.float(), target).items():
                columns.setdefault(name, []).extend(values)
    if sorted(positions) != list(range(len(ids))):
        raise GuardFailed(
            f"evaluation saw {len(positions)} examples ({len(set(positions))} different) of {len(ids)}"
        )
    order = sorted(range(len(positions)), key=positions.__getitem__)
    records = {"id": list(ids)} | {n: [v[i] for i in order] for n, v in columns.items()}
    return task.scalars(metrics.compute()) | {"loss": total / len(ids)}, records


def write_predictions(path: Path, records: Mapping[str, Sequence[Any]]) -> None:
    """Prediction records as Parquet: `id`, `target`, `prediction`, `scores`."""
    pq.write_table(pa.table(dict(records)), path, compression="zstd")
