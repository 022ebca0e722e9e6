"""Predictions of another system are measured as those of a run's own model."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from matrix import World, make_world

from ftlab.data.base import DataModule
from ftlab.errors import Incompatible, InputError
from ftlab.techniques.from_predictions import FromPredictions
from ftlab.training.evaluate import evaluate
from ftlab.training.execute import execute
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings

UNRENDERED = True
Made = Callable[[str], World]


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Made:
    return lambda name: make_world(name, request.getfixturevalue)


def loaded(made: World) -> tuple[Any, DataModule]:
    backbone, data = made()
    data.load()
    data.connect(backbone, 0)
    return backbone, data


def measured(data: DataModule, technique: FromPredictions) -> tuple[dict[str, float], dict[str, list]]:
    technique.prepare(data)
    return evaluate(torch.nn.Linear(1, 1), data.eval_loader("test"), data.task,  # type: ignore[arg-type]  # is not asked
                    data.splits["test"].ids, lambda batch: batch,
                    answers=technique.answers(data, "test"))


def write(path: Path, columns: dict[str, list[Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    elif path.suffix == ".jsonl":
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(columns)
            table.writerows([json.dumps(cell) if isinstance(cell, list | dict) else cell for cell in row]
                            for row in zip(*columns.values(), strict=True))
    return path


@pytest.mark.parametrize("kind", [".parquet", ".csv", ".jsonl"])
@pytest.mark.parametrize("name", ["text_classification", "multi_label", "regression",
                                  "token_classification", "seq2seq", "speech_recognition_ctc"])
def test_a_model_s_own_predictions__measure_the_same(
    name: str, kind: str, world: Made, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    backbone, data = loaded(world(name))
    model = backbone.build(data.task).eval()
    expected, records = evaluate(model, data.eval_loader("test"), data.task,
                                 data.splits["test"].ids, lambda batch: batch)
    kept = ("id", "prediction", "scores") if data.task.output_type == "vector" else ("id", "prediction")
    path = write(tmp_path / f"theirs{kind}", {column: records[column][::-1] for column in kept
                                              if column in records and (name, column) != ("regression", "scores")})
    found, again = measured(data, FromPredictions(str(path)))
    assert again["id"] == records["id"]
    assert again["target"] == records["target"]
    assert again["prediction"] == (pytest.approx(records["prediction"], rel=1e-5)
                                   if name == "regression" else records["prediction"])
    assert found.keys() == expected.keys() - {"loss"}
    # calibration is of probabilities, which are kept to seven digits
    assert found == pytest.approx({key: expected[key] for key in found}, abs=1e-4, nan_ok=True)


def columns_of(data: DataModule) -> dict[str, list[Any]]:
    ids = data.splits["test"].ids
    return {"id": list(ids), "prediction": [data.task.classes[0]] * len(ids)}  # type: ignore[attr-defined]


def test_row_numbers_and_score_columns__are_understood(world: Made, tmp_path: Path) -> None:
    _, data = loaded(world("text_classification"))
    columns = columns_of(data)
    columns["id"] = [name.rpartition(":")[2] for name in columns["id"]]
    one, other = data.task.classes  # type: ignore[attr-defined]
    columns |= {f"score {other}": [0.25] * len(columns["id"]), f"score {one}": [0.75] * len(columns["id"])}
    _, records = measured(data, FromPredictions(str(write(tmp_path / "theirs.csv", columns))))
    assert set(records["prediction"]) == {one}
    assert records["scores"][0] == pytest.approx([0.75, 0.25])


def drop(columns: dict[str, list[Any]]) -> None:
    for cells in columns.values():
        del cells[2]


def double(columns: dict[str, list[Any]]) -> None:
    columns["id"][3] = columns["id"][0]


def strange(columns: dict[str, list[Any]]) -> None:
    columns["id"][1] = "elsewhere:1"


def unknown(columns: dict[str, list[Any]]) -> None:
    columns["prediction"][4] = "splendid"


def nameless(columns: dict[str, list[Any]]) -> None:
    columns["answer"] = columns.pop("prediction")


def torn(columns: dict[str, list[Any]]) -> None:
    columns["scores"] = [[0.1, 0.9]] * len(columns["id"])


def short(columns: dict[str, list[Any]]) -> None:
    columns["scores"] = [[1.0]] * len(columns["id"])


@pytest.mark.parametrize(("spoil", "message"), [
    (drop, "theirs.jsonl lacks 1 of"), (double, "row 4: id '.*' is there already, in row 1"),
    (strange, "row 2: id 'elsewhere:1' is none of the data set's"),
    (unknown, "theirs.jsonl, row 5: label 'splendid'"), (nameless, "has no column 'prediction'"),
    (torn, "row 1: the prediction is '.*', and the scores prefer"),
    (short, "row 1: 1 scores for 2 names"),
])
def test_bad_files__are_refused_with_the_place(
    spoil: Callable[[dict[str, list[Any]]], None], message: str, world: Made, tmp_path: Path
) -> None:
    _, data = loaded(world("text_classification"))
    columns = columns_of(data)
    spoil(columns)
    technique = FromPredictions(str(write(tmp_path / "theirs.jsonl", columns)))
    with pytest.raises(InputError, match=message):
        technique.prepare(data)


def test_other_tasks_and_files__are_refused(world: Made, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="file must be the path of a table of predictions"):
        FromPredictions("")
    _, data = loaded(world("object_detection"))
    with pytest.raises(InputError, match=r"nowhere\.csv is no file"):
        FromPredictions(str(tmp_path / "nowhere.csv")).prepare(data)
    ids = data.splits["test"].ids
    path = write(tmp_path / "boxes.jsonl", {"id": list(ids), "prediction": [[]] * len(ids)})
    with pytest.raises(Incompatible, match="takes no predictions of other systems"):
        FromPredictions(str(path)).prepare(data)


@pytest.mark.parametrize("validation", [True, False])
def test_run__has_no_costs_of_inference_and_no_model(
    validation: bool, world: Made, tmp_path: Path
) -> None:
    _, data = loaded(world("text_classification"))
    columns = columns_of(data)
    if validation:
        ids = data.splits["validation"].ids
        columns = {"id": columns["id"] + list(ids),
                   "prediction": columns["prediction"] + columns["prediction"][:1] * len(ids)}
    path = write(tmp_path / "theirs.parquet", columns)
    backbone, data = world("text_classification")()
    (tmp_path / "run").mkdir()
    run = Run(backbone, data, FromPredictions(str(path)), TrainerSettings(), 0, "val/accuracy",
              tmp_path / "run")
    metrics = execute(run, lambda event: None)
    assert ("val/accuracy" in metrics) == validation
    assert "test/loss" not in metrics
    assert metrics["cost/train_seconds"] == metrics["cost/trainable_parameters"] == 0
    assert not {"cost/latency_seconds", "cost/inference_flops", "cost/total_parameters"} & metrics.keys()
    written = pq.read_table(tmp_path / "run" / "predictions" / "test.parquet")
    assert written["id"].to_pylist() == run.data.splits["test"].ids
