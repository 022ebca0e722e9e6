"""Token ids on disk are the tokenizer's, made once, and made again where they are damaged."""

import dataclasses
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data import token_cache
from ftlab.data.text import TextClassification
from ftlab.data.token_cache import Tokens, tokens_of
from ftlab.studies.plan import plan
from ftlab.studies.study import load_study

TEXTS = [f"{'good film ' * (i % 9)}the plot of number {i}" for i in range(200)]
fork = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FTLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FTLAB_CACHE_BYTES", raising=False)
    return tmp_path / "cache" / "tokens"


@pytest.fixture
def module() -> TextClassification:
    return TextClassification("unread.csv")


@pytest.fixture
def preprocessing(backbone: Callable[..., HuggingFace]):
    return backbone("bert").preprocessing


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def test_ids__are_the_tokenizers(folder, module, preprocessing) -> None:
    expected = preprocessing.encode(TEXTS, 12)
    assert expected[1] > 0
    assert tokens_of(module, TEXTS, preprocessing, 12) == expected  # made
    read, cut = tokens_of(module, TEXTS, preprocessing, 12)
    assert isinstance(read, Tokens)
    assert (list(read), cut) == expected
    assert (read[-1], read[3:5]) == (expected[0][-1], expected[0][3:5])
    assert len(files(folder)) == 1


def test_a_file__is_of_one_list_tokenizer_and_length(
    folder, module, preprocessing, backbone: Callable[..., HuggingFace]
) -> None:
    more = backbone("bert", new_tokens=["number"]).preprocessing
    joined = [TEXTS[0] + TEXTS[1], *TEXTS[2:]]
    for texts, reader, longest in ((TEXTS, preprocessing, 12), (TEXTS, preprocessing, 13),
                                   (TEXTS, more, 12), (TEXTS[::-1], preprocessing, 12),
                                   (joined, preprocessing, 12)):
        for _ in range(2):  # the tokenizer remembers how it cut last
            tokens, cut = tokens_of(module, texts, reader, longest)
            assert (list(tokens), cut) == reader.encode(texts, longest)
    assert len(files(folder)) == 5


@pytest.mark.parametrize("how", ["bit", "cut", "empty", "nonsense"])
def test_damaged_file__is_made_again(folder, module, preprocessing, how: str) -> None:
    expected = tokens_of(module, TEXTS, preprocessing, 12)
    (path,) = files(folder)
    whole = path.read_bytes()
    path.write_bytes({"bit": whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:],
                      "cut": whole[:-9], "empty": b"", "nonsense": b"nonsense" * 100}[how])
    assert token_cache._open(path) is None
    assert tokens_of(module, TEXTS, preprocessing, 12) == expected
    assert token_cache._open(path) is not None


def _tokenise(module, preprocessing, counts) -> None:
    def encode(texts, longest):
        os.write(counts, b"1")
        return preprocessing.encode(texts, longest)

    counted = type(preprocessing)(encode, preprocessing.pad, preprocessing.longest,
                                  preprocessing.tokenizer)
    tokens_of(module, TEXTS, counted, 12)


def test_two_processes__make_it_once(folder, module, preprocessing) -> None:
    reading, writing = os.pipe()
    processes = [fork.Process(target=_tokenise, args=(module, preprocessing, writing))
                 for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    os.close(writing)
    assert os.read(reading, 100) == b"1"
    os.close(reading)
    assert len(files(folder)) == 1


def test_plain__writes_nothing(folder, module, preprocessing) -> None:
    expected = tokens_of(module, TEXTS[:3], preprocessing, 12)  # too few
    assert list(expected[0]) == preprocessing.encode(TEXTS[:3], 12)[0]
    module.plain = True
    tokens_of(module, TEXTS, preprocessing, 12)
    assert not folder.exists()


def test_disk_that_refuses__is_told(folder, module, preprocessing) -> None:
    folder.parent.mkdir()
    folder.touch()
    assert tokens_of(module, TEXTS, preprocessing, 12) == preprocessing.encode(TEXTS, 12)
    assert "token ids are not kept" in module.notes[0]


def test_size__is_bounded_with_what_the_prefix_cache_has(
    folder, module, preprocessing, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens_of(module, TEXTS, preprocessing, 12)
    (first,) = files(folder)
    size = first.stat().st_size
    os.utime(first, (1, 1))
    other = folder.parent / "prefix" / "old.safetensors"
    other.parent.mkdir()
    other.write_bytes(bytes(5 * size))
    os.utime(other, (0, 0))
    monkeypatch.setenv("FTLAB_CACHE_BYTES", str(3 * size))
    tokens_of(module, TEXTS, preprocessing, 13)
    assert not other.exists()
    assert first.exists()
    tokens_of(module, TEXTS, preprocessing, 14)
    assert not first.exists()
    assert len(files(folder)) == 2


def test_loaders__bring_the_same_batches(
    tmp_path: Path, folder, backbone: Callable[..., HuggingFace], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "all.tsv"
    source.write_text("\n".join(f"{text}\t{'ab'[i % 2]}" for i, text in enumerate(TEXTS)))
    monkeypatch.setattr(token_cache, "FEW", 0)

    def batches(plain: bool) -> list[list[list[int]]]:
        data = TextClassification(str(source), text=0, label=1, max_length=12)
        data.plain = plain
        data.connect(backbone("bert"), 0)
        return [batch["inputs"]["input_ids"].tolist() for batch in data.train_dataloader()]

    plain = batches(True)
    assert not folder.exists()
    assert batches(False) == batches(False) == plain
    assert len(files(folder)) == 3


def test_plan__of_a_study_without_shortcuts_writes_nothing(
    tmp_path: Path, folder, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_cache, "FEW", 0)
    source = tmp_path / "all.csv"
    source.write_text("\n".join(["text,label", *(f"{text},{i % 2}" for i, text in enumerate(TEXTS))]))
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({
        "name": "small", "question": "Is it kept?", "seeds": [0],
        "backbones": {"b": {"class_path": "HuggingFace", "init_args": {"source": str(tiny_bert)}}},
        "datasets": {"d": {"class_path": "TextClassification",
                           "init_args": {"train": str(source), "max_length": 12}}},
        "techniques": {"probe": "LinearProbe"}}))
    study = load_study(path)
    plan(dataclasses.replace(study, shortcuts=False))
    assert not folder.exists()
    plan(study)
    assert len(files(folder)) == 3
