"""Predictions as a table, of every kind of task; and what no export holds."""

import csv
import io
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from exported import restored
from matrix import make_world

from ftlab.backbones.base import Backbone
from ftlab.errors import FtlabError, Incompatible
from ftlab.exports.export import write_model
from ftlab.exports.predictions import SHOWN, Predictions, beside, predictions_of
from ftlab.exports.restore_run import Restored
from ftlab.tasks.same_prediction import alike

SCORES = {
    "object_detection": ["scores"], "token_classification": ["scores"], "regression": ["scores"],
    "multi_label": ["score blame", "score people", "score praise", "score work"],
    "speech_recognition_ctc": ["scores"], "causal_lm": ["scores"], "seq2seq": [],
}
OF_THE_LABEL = {"speech_recognition_ctc", "causal_lm"}  # these say how good the target is


@pytest.fixture
def found(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Restored]:
    return lambda world, technique="FullFineTuning": restored(
        make_world(world, request.getfixturevalue), technique, tmp_path)


@pytest.mark.parametrize("world", SCORES)
def test_predictions__are_the_stored_ones(world: str, found: Callable, tmp_path: Path) -> None:
    model = found(world)
    stored = pq.read_table(tmp_path / "predictions" / "test.parquet").to_pydict()
    said = predictions_of(model)
    assert list(said.columns) == ["id", "target", "prediction", *SCORES[world]]
    for name in ("id", "target", "prediction"):
        assert alike(said.columns[name], stored[name], 1e-5), name
    assert said.metrics
    assert all(math.isfinite(value) for name, value in said.metrics.items() if name == "loss")

    bare = predictions_of(replace(model, labelled=[False] * len(said)))
    assert "target" not in bare.columns
    assert not bare.metrics
    assert alike(bare.columns["prediction"], stored["prediction"], 1e-5)
    assert ("scores" in bare.columns) == (SCORES[world] == ["scores"] and world not in OF_THE_LABEL)

    said.write(tmp_path / "said.parquet")
    assert alike(pq.read_table(tmp_path / "said.parquet").to_pydict(), said.columns, 1e-6)
    said.write(tmp_path / "said.csv")
    with (tmp_path / "said.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    if world == "object_detection":
        assert list(rows[0]) == ["id", "label", "x1", "y1", "x2", "y2", "score"]
        again: dict = {}
        for row in rows:
            boxes, scores = again.setdefault(row["id"], ([], []))
            if row["label"]:
                corners = [float(row[name]) for name in ("x1", "y1", "x2", "y2")]
                boxes.append({"label": row["label"], "box": corners})
                scores.append(float(row["score"]))
        assert list(again) == said.columns["id"]
        assert [boxes for boxes, _ in again.values()] == said.columns["prediction"]
        assert [scores for _, scores in again.values()] == said.columns["scores"]
        return
    assert [row["id"] for row in rows] == said.columns["id"]
    if not isinstance(said.columns["prediction"][0], str):
        assert alike([json.loads(row["prediction"]) for row in rows], said.columns["prediction"], 0)


def test_table__is_no_formula_and_no_markup(tmp_path: Path) -> None:
    from rich.console import Console

    said = Predictions({"id": ["=1+1", "[red]x"] + ["y"] * SHOWN,
                        "prediction": ["-x", "a\nb"] + ["c,\"d"] * SHOWN}, {})
    with said.write(tmp_path / "said.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[1:4] == [["'=1+1", "'-x"], ["[red]x", "a\nb"], ["y", 'c,"d']]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(said.rich())
    shown = console.export_text()
    assert "[red]x" in shown
    assert " =1+1 " in shown and " -x " in shown  # a terminal runs no formulas
    assert f"the first {SHOWN} of {SHOWN + 2}" in shown


@pytest.mark.parametrize("world", ["text_classification", "causal_lm", "object_detection"])
def test_metrics__are_over_those_that_have_labels(world: str, found: Callable) -> None:
    model = found(world)
    whole = predictions_of(model)
    labelled = [place % 3 != 1 for place in range(len(whole))]
    said = predictions_of(replace(model, labelled=labelled))
    assert alike(said.columns["prediction"], whole.columns["prediction"], 1e-5)
    assert said.columns["id"] == whole.columns["id"]
    assert said.columns["target"] == [target if known else None for target, known in zip(
        whole.columns["target"], labelled, strict=True)]
    pairs = [(target, row) for row, target, known in zip(
        range(len(whole)), whole.columns["target"], labelled, strict=True) if known]
    if world == "text_classification":
        right = [whole.columns["prediction"][row] == target for target, row in pairs]
        losses = [-math.log(whole.columns[f"score {target}"][row]) for target, row in pairs]
        assert said.metrics["accuracy"] == pytest.approx(sum(right) / len(right), abs=1e-6)
        assert said.metrics["loss"] == pytest.approx(sum(losses) / len(losses), abs=1e-5)
    if world == "causal_lm":
        right = [whole.columns["prediction"][row].strip() == target.strip() for target, row in pairs]
        assert said.metrics["exact_match"] == pytest.approx(sum(right) / len(right), abs=1e-6)
        assert [score is None for score in said.columns["scores"]] == [not n for n in labelled]


def test_input__comes_along_in_front_of_the_answers() -> None:
    answers: dict = {"id": ["new:1", "new:2"], "target": ["good", None],
                     "prediction": ["good", "bad"], "score good": [0.9, 0.2]}
    source: dict = {"who": ["ann", "bob"], "target": ["good", ""], "prediction": ["old", "good"],
                    "input prediction": [1, 2]}
    table = beside(answers, source)
    assert table == {
        "id": ["new:1", "new:2"], "who": ["ann", "bob"], "input prediction": [1, 2],
        "target": ["good", None], "prediction": ["good", "bad"], "score good": [0.9, 0.2],
    } | {"input prediction": [1, 2], "input input prediction": ["old", "good"]}
    assert list(table) == ["id", "who", "input input prediction", "input prediction", "target",
                           "prediction", "score good"]
    assert list(beside(answers, {"id": ["7", "9"], "who": ["a", "b"]}).items())[:2] == [
        ("id", ["7", "9"]), ("who", ["a", "b"])]
    files: list = [{"bytes": b"x", "path": None}, {"bytes": b"x", "path": "a.png"}]
    assert beside(answers, {"image": files, "raw": [b"x", None]})["image"] == [None, "a.png"]
    assert "raw" not in beside(answers, {"raw": [b"x", None]})


def test_tables__hold_what_a_source_has_in_its_cells(tmp_path: Path) -> None:
    """Values of several types in one column, dates, lists."""
    import datetime

    source: dict = {"mixed": ["a", 1], "day": [datetime.date(2024, 1, 2), None], "words": [["a"], []]}
    said = Predictions(beside({"id": ["x", "y"], "prediction": [1, 2]}, source), {})
    table = pq.read_table(said.write(tmp_path / "said.parquet")).to_pydict()
    assert table == said.columns | {"mixed": ["a", "1"]}
    assert said.write(tmp_path / "said.csv").read_text() == (
        'id,mixed,day,words,prediction\nx,a,2024-01-02,"[""a""]",1\ny,1,,[],2\n')


REFUSED = {
    ("object_detection", "LoRA", False): "TorchvisionDetector networks take no PEFT folder",
    ("object_detection", "BottleneckAdapter", False): "modules into the network that torchvision's",
    ("image_classification", "BottleneckAdapter", False): "modules into the network that ResNet",
    ("causal_lm", "BottleneckAdapter", True): "modules into the network that GPT2LMHeadModel",
    ("text_classification_decoder", "InContext", False): "changes no weights",
    ("causal_lm", "PromptTuning", True): "adds what no weights of the network can hold",
}


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: "-".join(map(str, case)))
def test_refused__in_one_line(case: tuple[str, str, bool], found: Callable, tmp_path: Path) -> None:
    world, technique, merged = case
    model = found(world, technique)
    folder = tmp_path / "export"
    folder.mkdir()
    with pytest.raises(Incompatible, match=REFUSED[case]) as caught:
        write_model(model, folder, merged)
    assert "\n" not in caught.value.what
    assert caught.value.mend


def test_model__that_finds_nothing_cannot_be_compared(found: Callable, tmp_path: Path) -> None:
    model = found("object_detection")
    table = pq.read_table(tmp_path / "predictions" / "test.parquet").to_pydict()
    assert not any(table["prediction"])
    folder = tmp_path / "export"
    folder.mkdir()
    with pytest.raises(FtlabError, match="predicts nothing for any test example"):
        write_model(model, folder)


@pytest.mark.parametrize(("world", "technique", "silent", "what"), [
    ("object_detection", "FullFineTuning", "export_code", "does not say how a library builds"),
])
def test_backbone__that_says_nothing_is_refused(
    world: str, technique: str, silent: str, what: str, found: Callable, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a new file of the family does until it says more."""
    model = found(world, technique)
    monkeypatch.setattr(type(model.run.backbone), silent, getattr(Backbone, silent))
    folder = tmp_path / "export"
    folder.mkdir()
    with pytest.raises(Incompatible, match=what):
        write_model(model, folder)
