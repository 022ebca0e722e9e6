"""What a run's model says of new examples, as a table."""

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
from rich.table import Table

from ftlab.data.base import DataModule
from ftlab.errors import InputError
from ftlab.exports.agreement import silent_trainer
from ftlab.exports.restore import Restored, restored
from ftlab.reports.export import write_file
from ftlab.reports.formats import escape_csv
from ftlab.training.evaluate import evaluate, placing

SHOWN = 20
_KINDS = (".csv", ".parquet")


@dataclass(frozen=True)
class Predictions:
    """Predictions in the order of the examples.

    Attributes:
        columns: `id`, `target` where there are labels, `prediction`, and a column of scores for
            each class (`score NAME`), or one `scores` where they belong to no class.
        metrics: of the examples, where they have labels.
        shown: the same as a flat table, of a detector with a row a box; `columns` unless said.
    """

    columns: dict[str, list[Any]]
    metrics: dict[str, float]
    shown: dict[str, list[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.columns["id"])

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
            pq.write_table(pa.table(self.columns), sink, compression="zstd")
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
            table.add_column(_plain(name))
        for row in rows[:SHOWN]:
            table.add_row(*(_plain(f"{value:.4f}" if isinstance(value, float) else _field(value))
                            for value in row))
        return table


def check_kind(path: Path) -> None:
    """Refuse a file that is no table of ours.

    Raises:
        InputError: its ending.
    """
    if path.suffix not in _KINDS:
        raise InputError(f"{path}: predictions are written as {' or '.join(_KINDS)}",
                         f"name it {path.with_suffix('.csv').name}")


def predict(run: str, source: str | Path, tracking_uri: str | None = None,
            allow: Sequence[str] = ()) -> Predictions:
    """What a run's model says of the examples of a source.

    They are read and prepared as the run's own test examples, and evaluated in the same way. The
    labels may be lacking.

    Args:
        run: MLflow's id of a finished run, or the beginning of one.
        source: as the `test` of the run's data module, or the same without labels.
        tracking_uri: as in `Tracker`.
        allow: packages outside ftlab whose classes the run may name.

    Raises:
        InputError: no such run or source; says why.
    """
    with restored(run, tracking_uri, allow, test=str(source)) as found:
        return predictions_of(found)


def predictions_of(found: Restored) -> Predictions:
    """What a restored model says of its test split.

    Raises:
        Incompatible: there is nothing that it predicts.
    """
    data = found.run.data
    data.check_predicts()
    trainer = silent_trainer(found.run)
    device = trainer.strategy.root_device
    metrics, records = evaluate(
        found.model.to(device), data.eval_loader("test"), data.task, data.splits["test"].ids,
        placing(trainer, device), trainer.precision_plugin.forward_context)
    columns = _columns(records, data, found.labelled)
    return Predictions(columns, metrics if found.labelled else {}, data.task.table(columns))


def _columns(records: Mapping[str, list[Any]], data: DataModule,
             labelled: bool) -> dict[str, list[Any]]:
    """Records as a table; what stands for a lacking label, or is computed from it, is left out."""
    columns = {"id": records["id"]}
    if labelled:
        columns["target"] = records["target"]
    columns["prediction"] = records["prediction"]
    task = data.task
    if task.form == "vector" and task.names:
        for place, name in enumerate(task.names):
            columns[f"score {name}"] = [row[place] for row in records["scores"]]
    elif "scores" in records and (labelled or task.form != "text"):
        columns["scores"] = records["scores"]
    return columns


def _field(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, int | float):
        return repr(value)
    return escape_csv(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _plain(text: str) -> Any:
    from rich.text import Text

    return Text(text)
