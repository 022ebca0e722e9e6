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
from ftlab.exports.predictions import SHOWN, Predictions, predictions_of
from ftlab.exports.restore import Restored
from ftlab.tasks.alike import alike

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

    bare = predictions_of(replace(model, labelled=False))
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
    assert f"the first {SHOWN} of {SHOWN + 2}" in shown


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
    ("object_detection", "FullFineTuning", "outside", "does not say how a library builds"),
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
