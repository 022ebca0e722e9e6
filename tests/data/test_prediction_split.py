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
from ftlab.data.prediction_split import put
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
    everything = {i for split in data.splits.values() for i in split.ids}
    assert all(put(data, source))
    assert set(data.splits["test"].ids) >= everything, "not a speaker's or a split's alone"
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
    assert not any(put(data, str(path)))
    assert data.splits["test"].ids == [f"new:{i}" for i in range(1, 8)]
    data.connect(backbone, 0)
    without = inputs(data)
    again_backbone, again = loaded(world)
    table.to_csv(tmp_path / "whole.csv", index=False)
    assert all(put(again, str(tmp_path / "whole.csv")))
    again.connect(again_backbone, 0)
    for name, tensor in inputs(again).items():
        assert torch.equal(tensor, without[name]), name


def test_sentences__without_tags(loaded: Callable, tmp_path: Path) -> None:
    backbone, data = loaded("token_classification")
    path = tmp_path / "new.jsonl"
    path.write_text("".join(json.dumps({"tokens": words}) + "\n"
                            for words in (["the", "good", "film"], ["bad"])))
    assert not any(put(data, str(path)))
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
        assert not any(put(data, str(source)))
        assert data.splits["test"].ids == ids
        data.connect(backbone, 0)
        assert len(next(iter(inputs(data).values()))) == len(ids)
    if world == "object_detection":
        assert data.splits["test"].labels == [[]]


def test_images__of_class_folders_and_beside_them(loaded: Callable, shapes: Path,
                                                  tmp_path: Path) -> None:
    folder = tmp_path / "new"
    for name in ("left", "notes"):
        (folder / name).mkdir(parents=True)
    first, second, *_ = sorted((shapes / "left").glob("*.png"))
    shutil.copy(first, folder / "left" / "a.png")
    shutil.copy(second, folder / "b.png")
    (folder / "notes" / "read.txt").write_text("no image")
    _, data = loaded("image_classification")
    assert put(data, str(folder)) == [False, True]
    examples = data.splits["test"]
    assert examples.ids == ["b.png", "left/a.png"]
    assert examples.columns["path"] == [str(folder / "b.png"), str(folder / "left" / "a.png")]
    assert any("1 files" in note and "no image files; skipped" in note for note in examples.notes)


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
        assert not any(put(data, str(source)))
        assert data.splits["test"].ids == ids
        data.connect(backbone, 0)
        assert inputs(data)


def test_texts__as_files(loaded: Callable, tmp_path: Path) -> None:
    _, data = loaded("text_classification")
    (tmp_path / "a.txt").write_text("a good film")
    (tmp_path / "b.txt").write_text("a bad plot")
    assert not any(put(data, str(tmp_path)))
    assert data.splits["test"].inputs == ["a good film", "a bad plot"]
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "c.txt").write_text("a fine cast")
    assert put(data, str(tmp_path)) == [False, False, True]
    assert data.splits["test"].inputs == ["a good film", "a bad plot", "a fine cast"]


@pytest.mark.parametrize(("content", "message"), [
    ("words,label\nx,good\n", "no column 'text'"), ("text,label\nx,soso\n", "does not occur in train"),
    ("text\n", "no rows"), ("", "no column|no rows"),
    ("text\n  \n", "no rows|empty"),
])
def test_tables__refused(content: str, message: str, loaded: Callable, tmp_path: Path) -> None:
    _, data = loaded("text_classification")
    path = tmp_path / "new.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        put(data, str(path))


def written(rows: list[dict[str, Any]], kind: str, folder: Path) -> str:
    """A table of these rows."""
    import pandas as pd

    path = folder / f"new.{kind}"
    frame = pd.DataFrame(rows)
    match kind:
        case "csv":
            frame.to_csv(path, index=False)
        case "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        case "parquet":
            frame.to_parquet(path)
        case "hub":
            import datasets

            datasets.DatasetDict({"test": datasets.Dataset.from_list(rows)}).save_to_disk(str(path))
            return f"hf:{path}"
    return str(path)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "hub"])
@pytest.mark.parametrize("labels", [["good", None, "bad"], ["good", "", "bad"], [None] * 3, ["", " ", None],
                                    ["good", "bad", "bad"]])
def test_empty_labels__are_no_labels(kind: str, labels: list, loaded: Callable,
                                     tmp_path: Path) -> None:
    _, data = loaded("text_classification")
    rows = [{"who": f"w{i}", "text": text, "label": label}
            for i, (text, label) in enumerate(zip(["a good film", "a plot", "bad cast"], labels,
                                                          strict=True))]
    assert put(data, written(rows, kind, tmp_path)) == [label in ("good", "bad") for label in labels]
    examples = data.splits["test"]
    assert examples.columns["who"] == ["w0", "w1", "w2"]
    assert examples.columns["text"] == examples.inputs
    for label, target in zip(labels, examples.targets, strict=True):
        if label in ("good", "bad"):
            assert target == data.task.encode(label, "")


@pytest.mark.parametrize(("world", "column", "answer"), [
    ("causal_lm", "opinion", "good"), ("seq2seq", "target", "good film"), ("multi_label", "label", "work"),
])
def test_empty_answers__are_no_labels(world: str, column: str, answer: str, loaded: Callable,
                                      tmp_path: Path) -> None:
    import pandas as pd

    backbone, data = loaded(world)
    table = pd.read_csv(str(data.sources["train"]), dtype=str, keep_default_na=False)[:3]
    column = column if column in table else table.columns[-1]
    kept = table[column].iloc[1]
    table[column] = ["", kept, " "]
    table.to_csv(tmp_path / "new.csv", index=False)
    assert put(data, str(tmp_path / "new.csv")) == [False, True, False]
    data.connect(backbone, 0)
    assert inputs(data)
    assert list(data.splits["test"].columns) == list(table)


@pytest.mark.parametrize(("name", "content", "labelled"), [
    ("bare.txt", "the\ngood\nfilm\n\nbad\n", [False, False]),
    ("half.txt", "the O\ngood O\nfilm O\n\nbad\t\n", [True, False]),
    ("rows.jsonl", '{"tokens": ["the"], "tags": []}\n{"tokens": ["a"], "tags": ["O"]}\n', [False, True]),
    ("none.jsonl", '{"tokens": ["the", "film"], "tags": null}\n{"tokens": ["a"]}\n', [False, False]),
])
def test_sentences__of_which_some_have_no_tags(name: str, content: str, labelled: list[bool],
                                               loaded: Callable, tmp_path: Path) -> None:
    backbone, data = loaded("token_classification")
    (tmp_path / name).write_text(content)
    assert put(data, str(tmp_path / name)) == labelled
    assert data.splits["test"].columns["tokens"] == data.splits["test"].inputs
    data.connect(backbone, 0)
    assert inputs(data)


def test_sentence__tagged_in_part_is_refused(loaded: Callable, tmp_path: Path) -> None:
    _, data = loaded("token_classification")
    (tmp_path / "new.txt").write_text("the\tO\nfilm\t\n")
    with pytest.raises(InputError, match="line 2: 'film' has no tag, and other words"):
        put(data, str(tmp_path / "new.txt"))


@pytest.mark.parametrize("world", ["speech_recognition_ctc", "speech_recognition_whisper"])
def test_speech__is_answered_whole_whoever_speaks(world: str, loaded: Callable,
                                                  tmp_path: Path) -> None:
    """Also by others than train's speakers, or by nobody in particular."""
    import pandas as pd

    backbone, data = loaded(world)
    source = Path(data.sources["train"])
    table = pd.read_csv(source, dtype=str)
    table["audio"] = [str(source.parent / name) for name in table["audio"]]
    table["transcript"] = ["", *table["transcript"][1:]]
    table[:3].drop(columns="speaker").to_csv(tmp_path / "new.csv", index=False)
    assert put(data, str(tmp_path / "new.csv")) == [False, True, True]
    data.connect(backbone, 0)
    assert len(inputs(data)) >= 1 and len(data.splits["test"]) == 3


def test_objects__of_all_lists_and_images_without(loaded: Callable, tmp_path: Path,
                                                  shapes: Path) -> None:
    _, data = loaded("object_detection")
    source = data.sources["train"]
    everything = {i for split in data.splits.values() for i in split.ids}
    assert all(put(data, source))
    assert set(data.splits["test"].ids) == everything
    shutil.copy(min(shapes.rglob("*.png")), tmp_path / "a.png")
    (tmp_path / "new.json").write_text(json.dumps({"images": [{"id": 1, "file_name": "a.png"}]}))
    _, data = loaded("object_detection")
    assert put(data, str(tmp_path / "new.json")) == [False]
    assert data.splits["test"].columns == {"path": [str(tmp_path / "a.png")]}


def test_unseen_class__is_refused_with_the_way_out(loaded: Callable, tmp_path: Path) -> None:
    _, data = loaded("text_classification")
    (tmp_path / "new.csv").write_text("text,label\nx,good\nx,soso\n")
    with pytest.raises(InputError, match=r"new:2.*'soso'") as caught:
        put(data, str(tmp_path / "new.csv"))
    assert caught.value.mend.endswith("leave its label empty, to predict without")


def test_notes__of_new_examples(loaded: Callable, tmp_path: Path) -> None:
    _, data = loaded("text_classification")
    data.notes = []
    (tmp_path / "new.csv").write_bytes(b"text,label\nx \xe9,\ny,good\n")
    put(data, str(tmp_path / "new.csv"))
    (tmp_path / "new.txt").write_bytes(b"x \xe9")
    put(data, str(tmp_path / "new.txt"))
    assert data.notes == [
        f"1 of 2 rows in {tmp_path / 'new.csv'} is not UTF-8; bytes replaced",
        f"1 of 1 texts in {tmp_path / 'new.txt'} is not UTF-8; bytes replaced"]


@pytest.mark.parametrize("content", [None, b"", b"abc", b"\x89PNG\r\n\x1a\n"])
def test_images__that_are_broken_are_all_named(content: bytes | None, loaded: Callable,
                                               shapes: Path, tmp_path: Path) -> None:
    whole = min(shapes.rglob("*.png")).read_bytes()
    for number in range(15):
        (tmp_path / f"{number:02}.png").write_bytes(
            whole if number in (3, 5) else whole[:200] if content is None else content)
    _, data = loaded("image_classification")
    with pytest.raises(InputError, match=r"^13 images cannot be used: ") as caught:
        put(data, str(tmp_path))
    what = caught.value.what
    assert [f"{number:02}" for number in range(15) if f"{tmp_path}/{number:02}.png" in what] == [
        "00", "01", "02", "04", "06", "07", "08", "09", "10", "11"]
    assert what.endswith("; and 3 more")
    assert "0x" not in what and "\n" not in what


def test_recordings__that_are_broken_are_all_named(loaded: Callable, spoken: Path,
                                                   tmp_path: Path) -> None:
    sound = min(spoken.glob("*.wav")).read_bytes()
    for name, content in {"a": b"", "b": sound, "c": b"abc", "d": sound[:30]}.items():
        (tmp_path / f"{name}.wav").write_bytes(content)
    _, data = loaded("audio_classification")
    with pytest.raises(InputError, match=r"^3 recordings cannot be used: ") as caught:
        put(data, str(tmp_path))
    assert all(f"{tmp_path}/{name}.wav" in caught.value.what for name in "acd")
    assert "0x" not in caught.value.what


def test_files__that_a_table_names_and_are_not_there_are_all_named(loaded: Callable,
                                                                   tmp_path: Path) -> None:
    for world, column in (("image_classification", "image"), ("audio_classification", "audio")):
        (tmp_path / "new.csv").write_text(f"{column},label\na.png,left\nb.png,right\n")
        _, data = loaded(world)
        with pytest.raises(InputError, match=r"^2 rows cannot be used: .*a.png.*b.png"):
            put(data, str(tmp_path / "new.csv"))


def test_broken_images__of_all_splits_are_named_at_once(shapes: Path, tmp_path: Path) -> None:
    from ftlab.data.image import ImageClassification

    shutil.copytree(shapes, tmp_path / "shapes")
    broken = sorted((tmp_path / "shapes").rglob("*.png"))[::9][:9]
    for path in broken:
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"^9 examples cannot be used: ") as caught:
        ImageClassification(str(tmp_path / "shapes")).load()
    assert all(str(path) in caught.value.what for path in broken)
