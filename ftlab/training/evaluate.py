"""Measuring a split: on one device, every example exactly once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from lightning import Trainer

from ftlab.backbones.task_model import TaskModel
from ftlab.data.examples import COLUMN, NAMED, SplitName
from ftlab.data.groups import Groups, SplitScores, groups_of
from ftlab.errors import GuardFailed
from ftlab.statistics.clusters import CLUSTER
from ftlab.tasks.base import Task
from ftlab.techniques.single_precision import in_single_precision
from ftlab.training.event_log import Report, heard
from ftlab.training.precision import Context
from ftlab.training.run import Run

Placing = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Moves a batch to the device and precision of the model."""


def evaluate(
    model: TaskModel,
    loader: Iterable[Any],
    task: Task,
    ids: Sequence[str],
    place: Placing,
    context: Context = nullcontext,
    answers: Sequence[Any] | None = None,
    groups: Groups | None = None,
) -> tuple[dict[str, float], dict[str, list[Any]]]:
    """Metrics and prediction records of one split.

    Args:
        model: in any mode; it is put into eval mode.
        loader: yields each of the split's examples once, in any order.
        task: loss, metrics, records.
        ids: the split's example ids, by `index`.
        place: see `Placing`.
        context: see `Context`; losses and metrics are computed outside it, in float32 or float64.
        answers: predictions of another system, by position; the model is not asked then, and
            there is no loss.
        groups: of the split's examples, which have scores of their own.

    Returns:
        Metrics without split prefix, `loss` among them, and the records' columns in the order
        of `ids`.

    Raises:
        GuardFailed: an example came twice or not at all.
    """
    model.eval()
    scores = SplitScores(task, groups)
    positions: list[int] = []
    columns: dict[str, list[Any]] = {}
    with torch.inference_mode():
        for raw in loader:
            batch = place(raw)
            positions += batch["index"].tolist()
            if answers is not None:
                given = [answers[position] for position in batch["index"].tolist()]
                predictions, target = task.answered(given, raw["target"])
                scores.update(predictions, {"target": target, "index": raw["index"]})
                _extend(columns, task.records(predictions, target))
                continue
            with context():
                outputs = model(batch)
                predictions = in_single_precision(task.predict(model, batch, outputs))
            loss = task.loss(in_single_precision(outputs), batch)
            scores.update(predictions, batch, loss)
            _extend(columns, task.records(predictions, batch["target"]))
    if sorted(positions) != list(range(len(ids))):
        raise GuardFailed(
            f"evaluation saw {len(positions)} examples ({len(set(positions))} different) of {len(ids)}"
        )
    order = sorted(range(len(positions)), key=positions.__getitem__)
    records = {"id": list(ids)} | {n: [v[i] for i in order] for n, v in columns.items()}
    return scores.compute(), records


def _extend(columns: dict[str, list[Any]], records: Mapping[str, list[Any]]) -> None:
    for name, values in records.items():
        columns.setdefault(name, []).extend(values)


def validate(
    run: Run, model: TaskModel, trainer: Trainer, split: SplitName, report: Report
) -> tuple[dict[str, float], dict[str, list[Any]]]:
    """`evaluate` a run's model on a split, with the trainer's device and precision."""
    data, place = run.data, placing(trainer, trainer.strategy.root_device)
    loader = heard(data.eval_loader(split), report)
    ids, context = data.splits[split].ids, trainer.precision_plugin.forward_context
    answers = run.technique.answers(data, split)
    groups = groups_of(data.splits, split)
    metrics, records = evaluate(model, loader, data.task, ids, place, context, answers, groups)
    columns, clusters = data.splits[split].columns, data.splits[split].clusters
    records |= {f"{COLUMN}{name}": columns[name] for name in data.columns}
    if len({*clusters}) < len(clusters):
        records[CLUSTER] = clusters
    return metrics, records


def measure_variant(
    run: Run, model: TaskModel, trainer: Trainer, name: str, report: Report
) -> dict[str, float]:
    """Test metrics of the model as it is at the moment; its predictions are those of the variant `name`."""
    metrics, records = validate(run, model, trainer, "test", report)
    write_predictions(run.directory / "predictions" / f"{NAMED}{name}.parquet", records)
    return metrics


def placing(trainer: Trainer, device: torch.device) -> Placing:
    """The trainer's own way of moving a batch to the device and precision of its model."""

    def place(batch: Mapping[str, Any]) -> Mapping[str, Any]:
        moved = trainer.strategy.batch_to_device(batch, device)
        converted: Mapping[str, Any] = trainer.precision_plugin.convert_input(moved)
        return converted

    return place


def write_predictions(path: Path, records: Mapping[str, Sequence[Any]]) -> None:
    """Prediction records as Parquet: `id`, `target`, `prediction`, `scores`, `column.NAME`, `cluster`."""
    pq.write_table(pa.table(dict(records)), path, compression="zstd")
