"""One number however files write it, through the data modules: labels, classes, speakers, answers."""

import csv
import json
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from pyarrow import parquet

from ftlab.data.audio_sources import AudioSource, Speakers
from ftlab.data.causal_lm import CausalLM
from ftlab.data.examples import Examples
from ftlab.data.text import TextClassification
from ftlab.data.token_classification import TokenClassification
from ftlab.errors import InputError
from ftlab.tasks.multi_label import MultiLabel
from ftlab.tasks.regression import Regression
from ftlab.tasks.tagging import Tagging

TWINS = ("labels '0' and '0.0' are spellings of one class (and 1 more so); rename them if they are "
         "not")
VALUES = [i % 2 for i in range(40)]


def write(path: Path, labels: list[Any], kind: Any = None) -> str:
    texts = [f"word {i}" for i in range(len(labels))]
    if path.suffix == ".parquet":
        parquet.write_table(pa.table({"text": texts, "label": pa.array(labels, kind)}), path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps({"text": text, "label": label})
                                  for text, label in zip(texts, labels, strict=True)))
    else:
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *zip(texts, labels, strict=True)])
    return str(path)


KINDS: dict[str, tuple[str, list[Any], Any]] = {
    "integers": ("i.parquet", VALUES, None), "doubles": ("d.parquet", VALUES, pa.float64()),
    "singles": ("s.parquet", VALUES, pa.float32()), "csv": ("i.csv", VALUES, None),
    "csv of floats": ("f.csv", list(map(float, VALUES)), None),
    "decimals": ("c.parquet", list(map(Decimal, VALUES)), pa.decimal128(5, 2)),
    "json": ("m.jsonl", [(v, str(v), float(v))[i // 2 % 3] for i, v in enumerate(VALUES)], None)}


@pytest.mark.parametrize("train", KINDS)
@pytest.mark.parametrize("test", KINDS)
def test_kinds_of_files__have_the_same_classes(train: str, test: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    sources = [write(folder / name, labels, kind) for folder, (name, labels, kind)
               in ((tmp_path, KINDS[train]), (tmp_path / "a", KINDS[test]))]
    data = TextClassification(sources[0], test=sources[1])
    data.load()
    assert data.splits["test"].targets == VALUES
    assert data.describe()["test"]["classes"] == dict.fromkeys(data.task.names, 20)
    assert data.task.names == (["0.0", "1.0"] if train == "csv of floats" else ["0", "1"])
    apart = "csv of floats" in (train, test) and train != test
    assert [note for note in data.notes if "label" in note] == (
        [TWINS] if apart else [])


def test_truths__are_one_class(tmp_path: Path) -> None:
    labels = [(bool(v), str(bool(v)), str(bool(v)).lower())[i // 2 % 3] for i, v in enumerate(VALUES)]
    data = TextClassification(write(tmp_path / "t.jsonl", labels))
    data.load()
    assert data.task.names == ["false", "true"]
    assert sum(Counter(data.splits[name].targets)[1] for name in data.splits) == 20


@pytest.mark.parametrize("kind", KINDS)
def test_classes__are_found_by_number(kind: str, tmp_path: Path) -> None:
    name, labels, type_ = KINDS[kind]
    data = TextClassification(write(tmp_path / name, labels, type_), classes={"0": "bad", "1": "good"})
    data.load()
    assert data.task.names == ["bad", "good"]
    answers = CausalLM(str(tmp_path / name), prompt="{text}", response="{label}",
                       classes={"0.0": "bad", "1": "good"})
    answers.load()
    assert {label for part in answers.splits.values() for label in part.labels} == {"bad", "good"}


def test_answers__from_numbers_are_written_alike(tmp_path: Path) -> None:
    for kind in ("integers", "doubles", "singles", "csv", "decimals", "json"):
        name, labels, type_ = KINDS[kind]
        data = CausalLM(write(tmp_path / name, labels, type_), prompt="{text}", response=" {label}")
        data.load()
        assert {text for part in data.splits.values() for text in part.labels} == {" 0", " 1"}, kind


def test_speakers__are_found_by_number(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"")
    rows = [{"audio": "a.wav", "label": "x", "speaker": float(i % 3)} for i in range(6)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = AudioSource("audio", "label", "speaker", None, "classes")
    examples, speakers, _ = source.read(str(tmp_path / "t.jsonl"), "train")
    assert speakers == ["0", "1", "2", "0", "1", "2"]
    chosen = Speakers(test=("2.0",)).choose(examples, speakers, "test", "t")
    assert isinstance(chosen, Examples) and chosen.ids == ["t:3", "t:6"]


def test_tags__may_be_numbers_in_the_scheme_none(tmp_path: Path) -> None:
    rows = [{"tokens": ["a", "b"], "tags": [1, (2, 2.0, "2")[i % 3]]} for i in range(30)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = TokenClassification(str(tmp_path / "t.jsonl"), task=Tagging("none"))
    data.load()
    assert data.task.tags == ["1", "2"]
    assert {tuple(tags) for part in data.splits.values() for tags in part.targets} == {(0, 1)}
    with pytest.raises(InputError, match="row 1, word 1: '1' is no tag of the scheme IOB2"):
        TokenClassification(str(tmp_path / "t.jsonl")).load()


@pytest.mark.parametrize(("label", "says"), [
    ([1, 0], "of type list"), (["a"], "of type list"), ({"a": 1}, "of type dict")])
def test_labels__that_are_no_class_are_refused_with_the_row(label, says, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"t\.jsonl, t:1: label .* is {says}"):
        TextClassification(write(tmp_path / "t.jsonl", [label, "x"] * 9)).load()


def test_wrong_vectors__are_refused_with_the_row_and_not_called_rare(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", [[i % 2, 1, i // 2 % 2] for i in range(30)] + [[1, 0]])
    with pytest.raises(InputError, match=r"t:31: label \[1, 0\], where train has lists of 3"):
        TextClassification(path, task=MultiLabel()).load()
    path = write(tmp_path / "u.jsonl", [[.1 * i, .5] for i in range(20)])
    with pytest.raises(InputError, match=r"u:\d+: label \[.*, where train has names"):
        TextClassification(path, task=MultiLabel()).load()
    test = write(tmp_path / "v.jsonl", [[1, 0, 1, 1]])
    train = write(tmp_path / "w.jsonl", [[i % 2, 1, i // 2 % 2] for i in range(30)])
    with pytest.raises(InputError, match=r"test split of .*v\.jsonl, v:1: label \[1, 0, 1, 1\]"):
        TextClassification(train, test=test, task=MultiLabel()).load()


def test_hub__lists_of_class_labels_are_names_and_lists_of_integers_flags(tmp_path: Path) -> None:
    flags = [[i % 2, 1, i // 2 % 2] for i in range(30)]
    indices = [[j for j, flag in enumerate(row) if flag] for row in flags]
    texts = [f"word {i}" for i in range(30)]
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.List(
        datasets.ClassLabel(names=["a", "b", "c"]))})
    whole = {"named": datasets.Dataset.from_dict({"text": texts, "label": indices}, features),
             "flags": datasets.Dataset.from_dict({"text": texts, "label": flags})}
    targets = {}
    for name, rows in whole.items():
        rows.save_to_disk(str(tmp_path / name))
        data = TextClassification(f"hf:{tmp_path / name}", task=MultiLabel())
        data.load()
        assert data.task.names == (["a", "b", "c"] if name == "named" else
                                   ["label_0", "label_1", "label_2"])
        targets[name] = {place: row for part in data.splits.values()
                         for place, row in zip(part.ids, part.targets, strict=True)}
    assert targets["named"] == targets["flags"]
    assert list(map(sum, zip(*targets["flags"].values(), strict=True))) == [15, 30, 14]


def test_regression__reads_decimals_and_refuses_what_python_alone_reads(tmp_path: Path) -> None:
    labels = [Decimal("1.50"), Decimal("2.25")] * 10
    data = TextClassification(write(tmp_path / "t.parquet", labels), task=Regression())
    data.load()
    assert {value for part in data.splits.values() for value in part.targets} == {1.5, 2.25}
    with pytest.raises(InputError, match="t:1: '1_0' is no number"):
        TextClassification(write(tmp_path / "t.csv", ["1_0", "2", "3"] * 9), task=Regression()).load()
