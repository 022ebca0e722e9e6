"""Predictions of a run's model for new examples, as a table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich.table import Table
from torch.utils.data import DataLoader

from ftlab.errors import InputError
from ftlab.exports.restore_run import Restored, restore_run
from ftlab.reports.csv_files import write_file
from ftlab.reports.formats import escape_csv
from ftlab.tasks.base import Task
from ftlab.terminal import plain_text
from ftlab.training.evaluate import evaluate, placing
from ftlab.training.make_trainer import silent_trainer

SHOWN = 20
"""Rows on a terminal."""
WIDEST = 60
"""Characters of a text on a terminal."""
_KINDS = (".csv", ".parquet")
_OF_LABELS = ("text", "pixels")
"""Output types whose scores are of the label."""


@dataclass(frozen=True)
class Predictions:
    """Predictions in the order of the examples.

    Attributes:
        columns: `id`, `target` where there are labels, `prediction`, and a column of scores for
            each class (`score NAME`), or one `scores` where they belong to no class. Between `id`
            and these stand the columns of a table that was given, or the `path` of files.
        metrics: of the examples that have labels.
        shown: the same as a flat table, of a detector with a row a box; `columns` unless said.
        notes: on the examples, for users: bytes replaced, files skipped.
    """

    columns: dict[str, list[Any]]
    metrics: dict[str, float]
    shown: dict[str, list[Any]] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.columns["prediction"])

    def frame(self) -> pd.DataFrame:
        """For notebooks."""
        return pd.DataFrame(self.columns)

    def write(self, path: Path) -> Path:
        """As CSV (flat; nested values as JSON) or Parquet, by the ending, whole or not at all.

        Raises:
            InputError: another ending, or a place that cannot be written.
        """
        check_kind(path)
        if path.suffix == ".parquet":
            sink = io.BytesIO()
            arrays = {name: _array(values) for name, values in self.columns.items()}
            pq.write_table(pa.table(arrays), sink, compression="zstd")
            return write_file(path, sink.getvalue())
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        flat = self.shown or self.columns
        writer.writerow([escape_csv(name) for name in flat])
        writer.writerows([_field(value) for value in row]
                         for row in zip(*flat.values(), strict=True))
        return write_file(path, text.getvalue())

    def rich(self) -> Table:
        """The first rows, for a terminal."""
        flat = self.shown or self.columns
        rows = list(zip(*flat.values(), strict=True))
        table = Table(caption=f"the first {SHOWN} of {len(rows)}" if len(rows) > SHOWN else None)
        for name in flat:
            table.add_column(plain_text(name))
        for row in rows[:SHOWN]:
            table.add_row(*(plain_text(f"{value:.4f}" if isinstance(value, float)
                                       else _short(_written(value))) for value in row))
        return table


def check_kind(path: Path) -> None:
    """Refuse a file that is not a table of ours.

    Raises:
        InputError: its ending.
    """
    if path.suffix not in _KINDS:
        raise InputError(f"{path}: predictions are written as {' or '.join(_KINDS)}",
                         f"name it {path.with_suffix('.csv').name}")


def predict(run: str, source: str | Path, tracking_uri: str | None = None,
            allow: Sequence[str] = ()) -> Predictions:
    """Predict the examples of a source with a run's model.

    They are read and prepared as the run's own test examples, and evaluated in the same way. Some
    or all labels may be lacking: their column, or what stands in it.

    Args:
        run: MLflow's id of a finished run, or the beginning of one.
        source: as the `test` of the run's data module, or the same without labels.
        tracking_uri: as in `Tracker`.
        allow: packages outside ftlab whose classes the run may name.

    Raises:
        InputError: no such run or source; says why.
    """
    with restore_run(run, tracking_uri, allow, test=str(source)) as restored:
        return predictions_of(restored)


def predictions_of(restored: Restored) -> Predictions:
    """Predict the test split with a restored model.

    Raises:
        Incompatible: there is nothing that it predicts.
    """
    data = restored.run.data
    data.check_predicts()
    examples = data.splits["test"]
    labelled = [True] * len(examples) if restored.labelled is None else list(restored.labelled)
    records: list[dict[str, Any]] = [{}] * len(examples)
    metrics: dict[str, float] = {}
    for is_labelled in sorted(set(labelled)):  # apart: metrics are over those that have labels
        places = [place for place, has_label in enumerate(labelled) if has_label == is_labelled]
        measured, answers = _evaluated(restored, places)
        metrics = measured if is_labelled else {}
        for place, *values in zip(places, *answers.values(), strict=True):
            records[place] = dict(zip(answers, values, strict=True))
    columns = {name: [record[name] for record in records] for name in records[0]}
    for name in ("target", *(["scores"] if data.task.output_type in _OF_LABELS else [])):
        if name in columns:  # of the label, which others stand in for
            columns[name] = [value if has_label else None
                             for value, has_label in zip(columns[name], labelled, strict=True)]
    columns = _columns(columns, data.task, any(labelled))
    rows = data.task.table({**columns, "id": list(range(len(examples)))})
    places = rows.pop("id")
    named = {"id": [columns["id"][place] for place in places], **rows}
    return Predictions(beside(columns, examples.columns), metrics,
                       beside(named, examples.take(places).columns), restored.notes)


def _evaluated(restored: Restored,
               places: Sequence[int]) -> tuple[dict[str, float], dict[str, list[Any]]]:
    """Metrics and records of some of the test examples."""
    data = restored.run.data
    trainer = silent_trainer(restored.run)
    device = trainer.strategy.root_device
    whole = data.eval_loader("test")
    order = {place: number for number, place in enumerate(places)}
    loader = DataLoader(whole.dataset, whole.batch_size, collate_fn=whole.collate_fn,
                        sampler=[place for place in whole.sampler if place in order],
                        num_workers=whole.num_workers, generator=whole.generator)
    move = placing(trainer, device)

    def place(batch: Mapping[str, Any]) -> Mapping[str, Any]:
        numbers = [order[place] for place in batch["index"].tolist()]
        return move({**batch, "index": torch.tensor(numbers)})

    return evaluate(restored.model.to(device), loader, data.task,
                    [data.splits["test"].ids[number] for number in places], place,
                    trainer.precision_plugin.forward_context)


def _columns(records: Mapping[str, list[Any]], task: Task,
             labelled: bool) -> dict[str, list[Any]]:
    """Records as a table; what stands for a lacking label, or is computed from it, is left out."""
    columns = {"id": records["id"]}
    if labelled:
        columns["target"] = records["target"]
    columns["prediction"] = records["prediction"]
    if task.output_type == "vector" and task.names:
        for place, name in enumerate(task.names):
            columns[f"score {name}"] = [row[place] for row in records["scores"]]
    elif "scores" in records and (labelled or task.output_type not in _OF_LABELS):
        columns["scores"] = records["scores"]
    return columns


def beside(answers: Mapping[str, list[Any]],
           source: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """A source's columns, then the answers to it, a row each.

    An `id` of the source stands in place of ours. What else has an answer's name is called
    `input NAME`, or left out where it says the same. Encoded files are left out.
    """
    columns = {} if "id" in source else {"id": answers["id"]}
    taken = answers.keys() - {"id"}
    for original, cells in source.items():
        name, values = original, _without_files(cells)
        if values is None or (name in taken
                              and list(map(_field, values)) == list(map(_field, answers[name]))):
            continue
        while name in (taken if name == original else taken | source.keys()):
            name = f"input {name}"
        columns[name] = values
    return columns | {name: values for name, values in answers.items() if name != "id"}


def _without_files(cells: list[Any]) -> list[Any] | None:
    """Paths in place of encoded files, as `datasets` stores them; None where there are none."""
    values = [cell.get("path") if isinstance(cell, dict) and "bytes" in cell else cell
              for cell in cells]
    encoded = any(isinstance(cell, bytes) or (isinstance(cell, dict) and "bytes" in cell)
                  for cell in cells)
    return None if encoded and not any(isinstance(value, str) for value in values) else values


def _array(values: list[Any]) -> pa.Array:
    """A column; as texts where its values are of several types."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else _text(value) for value in values])


def _field(value: Any) -> str:
    """A cell of a sheet."""
    text = _written(value)
    return text if isinstance(value, int | float) else escape_csv(text)


def _written(value: Any) -> str:
    if value is None:
        return ""
    return repr(value) if isinstance(value, int | float) else _text(value)


def _text(value: Any) -> str:
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _short(text: str) -> str:
    return text if len(text) <= WIDEST else f"{text[:WIDEST - 1]}\u2026"
