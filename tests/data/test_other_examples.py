"""Examples to predict: read as a data module's own, with labels or without."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from matrix import WORLDS, make_world

from ftlab.data.base import DataModule
from ftlab.data.other_examples import put
from ftlab.errors import InputError


@pytest.fixture
def loaded(request: pytest.FixtureRequest) -> Callable[[str], tuple[Any, DataModule]]:
    """A world's backbone and its data, loaded."""
    def make(name: str) -> tuple[Any, DataModule]:
        backbone, data = make_world(name, request.getfixturevalue)()
        data.load()
        return backbone, data

    return make


def inputs(data: DataModule) -> dict[str, torch.Tensor]:
    """The first examples of test, as the network gets them."""
    dataset = data.dataset("test", training=False)
    batch = data.collate(training=False)([dataset[i] for i in range(min(4, len(dataset)))])
    found: dict[str, torch.Tensor] = batch["inputs"]
    return found


@pytest.mark.parametrize("world", [w for w in WORLDS if w != "object_detection"])
def test_labelled__is_read_as_train_is(world: str, loaded: Callable) -> None:
    backbone, data = loaded(world)
    classes, source = data.task.summary(), data.sources["train"]
    whole = data.read("test", source)
    assert put(data, source)
    assert data.splits["test"].ids == whole.ids
    assert data.task.summary() == classes
    data.connect(backbone, 0)
    assert inputs(data)



COLUMNS = {"text_classification": "text", "multi_label": "text", "causal_lm": "text",
           "seq2seq": "source", "text_classification_decoder": "text"}


@pytest.mark.parametrize("world", COLUMNS)
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_tables__without_labels(world: str, kind: str, loaded: Callable, tmp_path: Path) -> None:
    import pandas as pd

    backbone, data = loaded(world)
    table = pd.read_csv(str(data.sources["train"]), dtype=str, keep_default_na=False)[:7]
    bare = table[[COLUMNS[world]]]
    path = tmp_path / f"new.{kind}"
    match kind:
        case "csv":
            bare.to_csv(path, index=False)
        case "jsonl":
            bare.to_json(path, orient="records", lines=True)
        case "parquet":
            bare.to_parquet(path)
    assert not put(data, str(path))
    assert data.splits["test"].ids == [f"new:{i}" for i in range(1, 8)]
    data.connect(backbone, 0)
    without = inputs(data)
    again_backbone, again = loaded(world)
    table.to_csv(tmp_path / "whole.csv", index=False)
    assert put(again, str(tmp_path / "whole.csv"))
    again.connect(again_backbone, 0)
    for name, tensor in inputs(again).items():
        assert torch.equal(tensor, without[name]), name


def test_sentences__without_tags(loaded: Callable, tmp_path: Path) -> None:
    backbone, data = loaded("token_classification")
    path = tmp_path / "new.jsonl"
    path.write_text("".join(json.dumps({"tokens": words}) + "\n"
                            for words in (["the", "good", "film"], ["bad"])))
    assert not put(data, str(path))
    assert data.splits["test"].inputs == [["the", "good", "film"], ["bad"]]
    data.connect(backbone, 0)
    assert inputs(data)["input_ids"].shape == (2, 5)


@pytest.mark.parametrize("world", ["image_classification", "image_classification_clip",
                                   "regression", "object_detection"])
def test_images__in_a_folder_or_alone(world: str, loaded: Callable, shapes: Path,
                                      tmp_path: Path) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    for number, path in enumerate(sorted(shapes.rglob("*.png"))[:3]):
        shutil.copy(path, folder / f"{number}.png")
    for source, ids in ((folder, ["0.png", "1.png", "2.png"]), (folder / "1.png", ["1.png"])):
        backbone, data = loaded(world)
        assert not put(data, str(source))
        assert data.splits["test"].ids == ids
        data.connect(backbone, 0)
        assert len(next(iter(inputs(data).values()))) == len(ids)
    if world == "object_detection":
        assert data.splits["test"].labels == [[]]


@pytest.mark.parametrize("world", ["audio_classification", "speech_recognition_ctc",
                                   "speech_recognition_whisper"])
def test_recordings__in_a_folder_a_table_or_alone(world: str, loaded: Callable, spoken: Path,
                                                  tmp_path: Path) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    for number, path in enumerate(sorted(spoken.glob("*.wav"))[:3]):
        shutil.copy(path, folder / f"r{number}.wav")
    (folder / "table.csv").write_text("audio\nr0.wav\nr2.wav\n")
    for source, ids in ((folder, ["r0.wav", "r1.wav", "r2.wav"]), (folder / "r1.wav", ["r1.wav"]),
                        (folder / "table.csv", ["table:1", "table:2"])):
        backbone, data = loaded(world)
        assert not put(data, str(source))
        assert data.splits["test"].ids == ids
        data.connect(backbone, 0)
        assert inputs(data)


def test_texts__as_files(loaded: Callable, tmp_path: Path) -> None:
    _, data = loaded("text_classification")
    (tmp_path / "a.txt").write_text("a good film")
    (tmp_path / "b.txt").write_text("a bad plot")
    assert not put(data, str(tmp_path))
    assert data.splits["test"].inputs == ["a good film", "a bad plot"]
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "c.txt").write_text("a fine cast")
    assert put(data, str(tmp_path)), "files beside class folders are none of theirs"
    assert data.splits["test"].inputs == ["a fine cast"]


@pytest.mark.parametrize(("content", "message"), [
    ("words,label\nx,good\n", "no column 'text'"), ("text,label\nx,soso\n", "does not occur in train"),
    ("text,label\nx,\n", "label is missing"), ("text\n", "no rows"), ("", "no column|no rows"),
    ("text\n  \n", "no rows|empty"),
])
def test_tables__refused(content: str, message: str, loaded: Callable, tmp_path: Path) -> None:
    _, data = loaded("text_classification")
    path = tmp_path / "new.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        put(data, str(path))
