"""Folders named as files, files named as folders, and JSON that is deep or has huge numbers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.audio_classification import AudioClassification
from ftlab.data.base import DataModule
from ftlab.data.causal_lm import CausalLM
from ftlab.data.image import ImageClassification
from ftlab.data.object_detection import ObjectDetection
from ftlab.data.seq2seq import Seq2Seq
from ftlab.data.speech_recognition import SpeechRecognition
from ftlab.data.text import TextClassification
from ftlab.data.token_classification import TokenClassification
from ftlab.errors import FtlabError, InputError
from ftlab.interchange import Parquet, parse_json


def summaries(source: str) -> DataModule:
    return Seq2Seq(source, source="text", target="label")


MODULES: list[Callable[..., DataModule]] = [
    TextClassification, ImageClassification, AudioClassification, SpeechRecognition, CausalLM,
    summaries, TokenClassification, ObjectDetection]


def refused(load: Callable[[], Any], *words: str) -> None:
    with pytest.raises(FtlabError) as caught:
        load()
    assert len(str(caught.value).split("\n")) == 2
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet", "conll", "json", "txt"])
@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_source__a_folder_named_as_a_file(
        module: Callable[..., DataModule], ending: str, tmp_path: Path) -> None:
    folder = tmp_path / f"x.{ending}"
    folder.mkdir()
    refused(module(str(folder)).load, f"x.{ending}")


@pytest.mark.parametrize("ending", ["", ".csv", ".tsv", ".jsonl", ".parquet", ".json"])
@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_source__a_file_named_as_a_folder(
        module: Callable[..., DataModule], ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{ending}"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\0\xff not what it is called")
    refused(module(str(path)).load, f"x{ending}")


def test_images__a_folder_among_the_files_of_a_class_is_not_read(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "folder.png").mkdir(parents=True)
        for i in range(6):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / name / f"{i}.png")
    data = ImageClassification(str(tmp_path))
    data.load()
    assert sum(map(len, data.splits.values())) == 12


def test_images__a_folder_that_a_table_names(tmp_path: Path) -> None:
    (tmp_path / "x.png").mkdir()
    (tmp_path / "a.csv").write_text("image,label\n" + "x.png,a\nx.png,b\n" * 6)
    refused(ImageClassification(str(tmp_path / "a.csv")).load, "no such image", "x.png")


JSON = {
    "deep": '{"text": ' + "[" * 3000 + "]" * 3000 + ', "label": 1}',
    "open": '{"text": ' + "[" * 100_000,
    "just too deep": '{"text": ' + "[" * 101 + "]" * 101 + ', "label": 1}',
    "5,000 digits": '{"text": "a", "label": ' + "9" * 5000 + "}",
    "text of 5,000 digits": '{"text": ' + "9" * 5000 + ', "label": 1}',
}


@pytest.mark.parametrize("case", JSON)
@pytest.mark.parametrize("module", [TextClassification, summaries, TokenClassification],
                         ids=lambda module: module.__name__)
def test_json_lines__deep_or_huge(
        module: Callable[..., DataModule], case: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "label": "b", "tokens": [], "tags": []}\n' + JSON[case] + "\n")
    refused(module(str(path)).load, "a.jsonl, row 2")


def test_json_lines__a_line_of_20_mb_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    row = json.dumps({"text": "x" * 20_000_000, "label": "a"})
    path.write_text("\n".join([row, *(json.dumps({"text": f"{i}", "label": "b"}) for i in range(9))]))
    assert max(map(len, TextClassification(str(path)).read("train", str(path)).inputs)) == 20_000_000


@pytest.mark.parametrize("text", [*JSON.values(), "", "[", "nul", b"\xff\xfe", b"\0"],
                         ids=lambda text: str(text[:12]))
def test_parse_json__names_the_place(text: str | bytes) -> None:
    refused(lambda: parse_json(text, "the place", "the mend"), "the place", "the mend")


def test_parse_json__all_that_is_flat_or_moderately_deep() -> None:
    for value in ([[]] * 5000, json.loads("[" * 100 + "]" * 100), {"a": [{}] * 300}, None, 1.5):
        assert parse_json(json.dumps(value), "", "") == value


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1", b"a,b\n1,2\n"])
def test_parquet__that_is_none(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    refused(TextClassification(str(path)).load, "a.parquet is malformed")
    refused(lambda: Parquet(content, "it", "mend it"), "it is malformed", "mend it")


def test_parquet__texts_that_are_not_utf8(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    damaged = pyarrow.Array.from_buffers(pyarrow.string(), 2, [
        None, pyarrow.py_buffer(bytes(pyarrow.array([0, 2, 4], pyarrow.int32()).buffers()[1])[:12]),
        pyarrow.py_buffer(b"\xff\xfe\xfd\xfc")])
    parquet.write_table(pyarrow.table({"text": damaged, "label": ["a", "b"]}), path)
    refused(TextClassification(str(path)).load, "a.parquet is malformed")


@pytest.mark.parametrize("content", ["[]", "1", '"a"', "null", "{", "", "[" * 3000 + "]" * 3000,
                                     '{"a": ' + "9" * 5000 + "}", "\0"], ids=lambda text: text[:8])
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "tokenizer.json"])
def test_backbone__settings_that_are_not_an_object(
        name: str, content: str, tiny_bert: Path, tmp_path: Path) -> None:
    for file in tiny_bert.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / name).write_text(content)
    refused(lambda: HuggingFace(str(tmp_path)).preprocessing, str(tmp_path))


@pytest.mark.parametrize("content", ["[]", "1", "null", "{", "[" * 3000 + "]" * 3000])
@pytest.mark.parametrize("name", ["generation_config.json", "special_tokens_map.json",
                                  "added_tokens.json", "processor_config.json", "vocab.json"])
def test_backbone__files_beside_are_refused_or_not_needed(
        name: str, content: str, tiny_bert: Path, tmp_path: Path) -> None:
    for file in tiny_bert.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / name).write_text(content)
    try:
        assert HuggingFace(str(tmp_path)).preprocessing.encode(["a film"], 8)[0]
    except InputError as error:
        assert str(tmp_path) in error.what
        assert len(str(error).split("\n")) == 2


@pytest.mark.parametrize("content", ["[]", "1", "null", "{", "", "[" * 3000 + "]" * 3000])
def test_image_processor__settings_that_are_not_an_object(
        content: str, tiny_resnet: Path, tmp_path: Path) -> None:
    for file in tiny_resnet.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "preprocessor_config.json").write_text(content)
    refused(lambda: HuggingFace(str(tmp_path)).preprocessing, str(tmp_path))


@pytest.mark.parametrize("content", [
    "[]", '{"weight_map": []}', '{"weight_map": {"a": 1}}', '{"weight_map": null}', "{}",
    '{"weight_map": {}}', '{"weight_map": {"a": ["b"]}}', "{"])
def test_weights__an_index_that_names_no_files(
        content: str, tiny_bert: Path, tmp_path: Path) -> None:
    for file in tiny_bert.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors.index.json").write_text(content)
    refused(lambda: HuggingFace(str(tmp_path)).fingerprint, "model.safetensors.index.json")
