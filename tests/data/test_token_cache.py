"""What tokenizers make is the same from disk, made once, and made again where it is damaged."""

import dataclasses
import importlib
import inspect
import json
import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data import token_cache
from ftlab.data.base import DataModule
from ftlab.data.causal_lm import CausalLM
from ftlab.data.examples import SPLITS
from ftlab.data.masked_lm import MaskedLM
from ftlab.data.ragged import Ragged, lengths
from ftlab.data.seq2seq import Seq2Seq
from ftlab.data.text import TextClassification
from ftlab.data.token_cache import TokenCache, Tokenised
from ftlab.data.token_classification import TokenClassification
from ftlab.errors import InputError
from ftlab.studies.discover import members
from ftlab.studies.plan import plan
from ftlab.studies.study import load_study

TEXTS = [f"{'good film ' * (i % 9)}the [SEP] plot of number {i}" for i in range(200)]
CHAT = "{% for m in messages %}a {{ m['content'] }} {% endfor %}{% if add_generation_prompt %}a {% endif %}"
LONGER_CHAT = CHAT.replace("{% endfor %}", "{% if m['content'] %} b {% endif %}{% endfor %}")
fork = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FTLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FTLAB_CACHE_BYTES", raising=False)
    monkeypatch.setattr(token_cache, "FEW", 0)
    return tmp_path / "cache" / "tokens"


@pytest.fixture
def module() -> TextClassification:
    return TextClassification("unread.csv")


@pytest.fixture
def preprocessing(backbone: Callable[..., HuggingFace]):
    return backbone("bert").preprocessing


@pytest.fixture
def cache(module, preprocessing) -> TokenCache:
    return TokenCache(module, preprocessing)


def turns(text: str, number: int) -> str:
    """A conversation about a text, as JSON."""
    contents = [text, "bad", "and the plot", f"{'very ' * (number % 7)}good"][-4 + number % 2 * 2:]
    return json.dumps([{"role": ("user", "assistant")[place % 2], "content": content}
                       for place, content in enumerate(contents)])


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def listed(made: Tokenised) -> tuple[dict[str, list[list[int]]], int]:
    return {name: [list(row) for row in rows] for name, rows in made.columns.items()}, made.cut


# What every data module of texts is held to

SOURCE = {TextClassification: "texts.tsv", Seq2Seq: "texts.tsv", CausalLM: "texts.tsv",
          MaskedLM: "texts.tsv", TokenClassification: "words.conll"}
SETTINGS: list[tuple[type[DataModule], str, dict[str, Any]]] = [
    (TextClassification, "bert", {"text": 0, "label": 1, "max_length": 12}),
    (TextClassification, "bert", {"text": 0, "label": 1, "max_length": 13}),
    (Seq2Seq, "t5", {"source": 0, "target": 2, "max_source_length": 12, "max_target_length": 5}),
    (Seq2Seq, "t5", {"source": 0, "target": 2, "prefix": "a b ", "max_target_length": 6,
                     "max_source_length": 12}),
    (Seq2Seq, "gpt2", {"source": 2, "target": 0, "max_source_length": 12,
                       "max_target_length": 20}),
    (TokenClassification, "bert", {"max_length": 9}),
    (TokenClassification, "gpt2", {"max_length": 10}),
    (CausalLM, "gpt2", {"prompt": "{0}", "response": "{2}", "max_length": 16}),
    (CausalLM, "bert", {"prompt": "{0}", "response": "{2}", "max_length": 16}),
    (CausalLM, "gpt2", {"prompt": "a {0}", "response": "{2} b", "max_length": 16}),
    (CausalLM, "gpt2", {"prompt": "{0}", "response": "{2}", "max_length": 17}),
    (CausalLM, "gpt2", {"prompt": "{0}", "response": "{2}", "max_length": 17, "packing": True}),
    (CausalLM, "gpt2", {"prompt": "{0}", "response": "{2}", "max_length": 16, "chat": True}),
    (CausalLM, "gpt2", {"messages": 3, "max_length": 30}),
    (CausalLM, "gpt2", {"messages": 3, "max_length": 29, "packing": True}),
    (CausalLM, "gpt2", {"prompt": None, "response": "{0}", "max_length": 7}),
    (CausalLM, "gpt2", {"prompt": None, "response": "{0}", "max_length": 8}),
    (MaskedLM, "bert", {"text": 0, "label": 1, "max_length": 6}),
]
CHANGED = (0, 2, 5, 8, 12, 13, 15)  # of each kind one
each_setting = pytest.mark.parametrize(
    ("cls", "family", "settings"), SETTINGS, ids=[f"{i}-{s[0].__name__}" for i, s in
                                                  enumerate(SETTINGS)])


def seen(data: DataModule) -> dict[str, Any]:
    """All that a run reads of it."""
    loaders = {"fit": data.train_dataloader(), "test": data.test_dataloader(),
               "validation": data.val_dataloader()}
    return {"batches": {name: [plain(batch) for batch in loader]
                        for name, loader in loaders.items()},
            "lengths": {split: list(data.lengths(split) or ()) for split in SPLITS},
            "splits": data.splits, "notes": data.notes}


def plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.tolist()
    return {k: plain(v) for k, v in value.items()} if isinstance(value, dict) else value


@pytest.fixture
def connected(tmp_path: Path, backbone: Callable[..., HuggingFace]) -> Callable[..., DataModule]:
    """Of the class and settings, on files of `TEXTS`."""
    (tmp_path / "texts.tsv").write_text("".join(
        f"{text}\t{'ab'[i % 2]}\t{'very ' * (i % 7)}bad\t{turns(text, i)}\n"
        for i, text in enumerate(TEXTS)))
    (tmp_path / "words.conll").write_text("\n".join(
        "".join(f"{word} {'B-X' if word == 'good' else 'O'}\n" for word in text.split())
        for text in TEXTS))

    def connect(cls: type[DataModule], family: str, settings: dict[str, Any],
                shortcuts: bool = True, **changed: Any) -> DataModule:
        chosen = backbone(family)
        mask = {"mask_token": "[UNK]"} if cls is MaskedLM else {}
        for name, value in {"chat_template": CHAT, **mask, **changed}.items():
            setattr(chosen.preprocessing.tokenizer, name, value)
        data = cls(str(tmp_path / SOURCE[cls]), **settings)
        data.plain = not shortcuts
        data.connect(chosen, 0)
        return data

    return connect


def test_modules__that_read_texts_are_all_held_to_it() -> None:
    reading = {cls for cls in members(DataModule).values()
               if "text_reader(" in inspect.getsource(sys.modules[cls.__module__])}
    assert reading == {cls for cls, _, _ in SETTINGS}


@each_setting
def test_module__sees_the_same_and_tokenises_nothing_twice(
    cls, family, settings, connected, folder
) -> None:
    expected = seen(connected(cls, family, settings, shortcuts=False))
    assert not folder.exists()
    assert seen(connected(cls, family, settings)) == expected
    kept = files(folder)
    assert kept

    def refuse(*arguments: Any, **settings: Any) -> None:
        raise AssertionError("tokenised again")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transformers.PreTrainedTokenizerFast, "__call__", refuse)
        patch.setattr(transformers.PreTrainedTokenizerFast, "decode", refuse)
        assert seen(connected(cls, family, settings)) == expected
    for path in kept:
        path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    assert seen(connected(cls, family, settings)) == expected
    assert files(folder) == kept


def test_module__never_reads_what_others_wrote(connected, folder) -> None:
    """All settings in one folder, and tokenizers that differ in what no vocabulary says."""
    changes: list[dict[str, Any]] = [
        {"truncation_side": "left"}, {"eos_token": "good"}, {"bos_token": "the"},
        {"sep_token": "film"}, {"chat_template": LONGER_CHAT}, {"split_special_tokens": True}]
    cases = [(case, {}) for case in SETTINGS]
    cases += [(SETTINGS[i], changed) for i in CHANGED for changed in changes]
    for case, changed in cases:
        connected(*case, **changed)
    for case, changed in cases:
        read, made = (connected(*case, shortcuts=cached, **changed) for cached in (True, False))
        assert [read.dataset("train", False)[i] for i in range(len(read.splits["train"]))] == [
            made.dataset("train", False)[i] for i in range(len(made.splits["train"]))]
        assert read.notes == made.notes


def test_templates__that_read_the_clock_are_never_old(connected, folder) -> None:
    settings = {"prompt": "{0}", "response": "{2}", "max_length": 24, "chat": True}
    for times in (1, 2):
        connected(CausalLM, "gpt2", settings, chat_template=CHAT + "{{ strftime_now('%f') }}")
        assert len(files(folder)) == 3 * times


def test_responses__too_long_are_refused_again(connected, folder) -> None:
    settings = {"prompt": "{0}", "response": "{2}", "max_length": 7}
    said = set()
    for shortcuts in (False, True, True):
        with pytest.raises(InputError) as error:
            connected(CausalLM, "gpt2", settings, shortcuts=shortcuts)
        said.add(str(error.value))
    assert len(said) == 1


# The file


def test_ids__are_the_tokenizers(folder, cache, preprocessing) -> None:
    ids, cut = preprocessing.encode(TEXTS, 12)
    assert cut > 0
    assert cache.encoded(TEXTS, 12) == ({"ids": ids}, cut)  # made
    read = cache.encoded(TEXTS, 12)
    rows = read.columns["ids"]
    assert isinstance(rows, Ragged)
    assert listed(read) == ({"ids": ids}, cut)
    assert (rows[-1], rows[3:5], [rows[i] for i in range(200)]) == (ids[-1], ids[3:5], ids)
    assert lengths(rows) == lengths(ids)
    with pytest.raises(IndexError):
        rows[200]
    assert len(files(folder)) == 1


@pytest.mark.parametrize("columns", [
    {"a": [[0, 255], [], [3]], "b": [[-100], [256]]}, {"a": [[], []], "b": [[2**31 - 1]]},
    {"a": [b"caf\xc3\xa9", b""], "b": []},
])
def test_columns__of_any_lengths_come_back(columns, cache) -> None:
    def make(tokenizer: Any, texts: Any) -> Tokenised:
        return Tokenised(columns, 7)

    expected = listed(cache.made(make, TEXTS))
    found = cache.made(make, TEXTS)
    assert all(isinstance(rows, Ragged) for rows in found.columns.values())
    assert listed(found) == expected


def test_a_file__is_of_the_code_that_made_it(
    tmp_path: Path, cache, folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    source = """from ftlab.data.token_cache import Tokenised
def one(tokenizer, texts): return Tokenised({"a": [[1]]})
def two(tokenizer, texts): return Tokenised({"a": [[2]]})
"""
    path = tmp_path / "making.py"
    path.write_text(source)
    making = importlib.import_module("making")
    for make, value in ((making.one, 1), (making.two, 2)):
        for _ in range(2):
            assert listed(cache.made(make, TEXTS))[0] == {"a": [[value]]}
    path.write_text(source.replace("[[1]]", "[[31]]"))
    del sys.modules["making"]
    importlib.invalidate_caches()
    assert listed(cache.made(importlib.import_module("making").one, TEXTS))[0] == {"a": [[31]]}
    del sys.modules["making"]
    assert len(files(folder)) == 3


def test_a_file__is_of_one_list_tokenizer_and_length(
    folder, module, preprocessing, backbone: Callable[..., HuggingFace]
) -> None:
    more = backbone("bert", new_tokens=["number"]).preprocessing
    joined = [TEXTS[0] + TEXTS[1], *TEXTS[2:]]
    for texts, reader, longest in ((TEXTS, preprocessing, 12), (TEXTS, preprocessing, 13),
                                   (TEXTS, more, 12), (TEXTS[::-1], preprocessing, 12),
                                   (joined, preprocessing, 12)):
        for _ in range(2):  # the tokenizer remembers how it cut last
            tokens, cut = TokenCache(module, reader).encoded(texts, longest)
            assert (list(tokens["ids"]), cut) == reader.encode(texts, longest)
    assert len(files(folder)) == 5


def test_target_language__is_part_of_the_name(folder, cache, preprocessing) -> None:
    """Tokenizers of translation write targets as it says."""
    names = set()
    for language in ("de_DE", "fr_FR"):
        preprocessing.tokenizer.tgt_lang = language
        names.add(TokenCache(cache.module, preprocessing)._key(cache.encode, "[]"))
    assert len(names) == 2


@pytest.mark.parametrize("how", ["bit", "cut", "empty", "nonsense"])
def test_damaged_file__is_made_again(folder, cache, how: str) -> None:
    expected = cache.encoded(TEXTS, 12)
    (path,) = files(folder)
    whole = path.read_bytes()
    path.write_bytes({"bit": whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:],
                      "cut": whole[:-9], "empty": b"", "nonsense": b"nonsense" * 100}[how])
    assert token_cache._open(path) is None
    assert cache.encoded(TEXTS, 12) == expected
    assert token_cache._open(path) is not None


def _tokenise(module, preprocessing, counts) -> None:
    def encode(texts, longest):
        os.write(counts, b"1")
        return preprocessing.encode(texts, longest)

    TokenCache(module, dataclasses.replace(preprocessing, encode=encode)).encoded(TEXTS, 12)


def test_two_processes__make_it_once(folder, module, preprocessing) -> None:
    reading, writing = os.pipe()
    processes = [fork.Process(target=_tokenise, args=(module, preprocessing, writing))
                 for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    os.close(writing)
    assert os.read(reading, 100) == b"1"
    os.close(reading)
    assert len(files(folder)) == 1


def test_plain__writes_nothing(
    folder, cache, preprocessing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_cache, "FEW", 4096)
    ids, cut = preprocessing.encode(TEXTS[:3], 12)  # too few
    assert cache.encoded(TEXTS[:3], 12) == ({"ids": ids}, cut)
    cache.module.plain = True
    cache.encoded(TEXTS, 12)
    assert not folder.exists()
    cache.module.plain = False
    cache.encoded(TEXTS, 12)
    assert len(files(folder)) == 1


def test_disk_that_refuses__is_told(folder, cache, preprocessing) -> None:
    folder.parent.mkdir()
    folder.touch()
    ids, cut = preprocessing.encode(TEXTS, 12)
    assert cache.encoded(TEXTS, 12) == ({"ids": ids}, cut)
    assert "token ids are not kept" in cache.module.notes[0]


def test_size__is_bounded_with_what_the_prefix_cache_has(
    folder, cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.encoded(TEXTS, 12)
    (first,) = files(folder)
    size = first.stat().st_size
    os.utime(first, (1, 1))
    other = folder.parent / "prefix" / "old.safetensors"
    other.parent.mkdir()
    other.write_bytes(bytes(5 * size))
    os.utime(other, (0, 0))
    monkeypatch.setenv("FTLAB_CACHE_BYTES", str(3 * size))
    cache.encoded(TEXTS, 13)
    assert not other.exists()
    assert first.exists()
    cache.encoded(TEXTS, 14)
    assert not first.exists()
    assert len(files(folder)) == 2


def test_plan__of_a_study_without_shortcuts_writes_nothing(
    tmp_path: Path, folder, tiny_bert: Path
) -> None:
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
