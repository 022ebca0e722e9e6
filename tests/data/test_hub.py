import builtins

import pytest

from ftlab.data.sources import own_splits, read
from ftlab.data.token_classification import TokenClassification
from ftlab.errors import InputError

datasets = pytest.importorskip("datasets", reason="the extra hub is not installed")
NAMES = ["neg", "pos"]


def make(labels: list[int]):
    features = datasets.Features({"text": datasets.Value("string"),
                                  "label": datasets.ClassLabel(names=NAMES)})
    return datasets.Dataset.from_dict(
        {"text": [f"text {i}" for i in range(len(labels))], "label": labels}, features)


@pytest.fixture
def source(tmp_path) -> str:
    parts = {"train": make([0, 1, 1]), "validation": make([1]), "test": make([-1, -1])}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    return f"hf:{tmp_path / 'saved'}"


def test_hub__splits_and_class_names(source):
    examples, _ = read(source, "train", "text", "text", "label")
    assert examples.ids == ["train:1", "train:2", "train:3"]
    assert examples.labels == ["neg", "pos", "pos"]
    assert list(own_splits(source)) == ["train", "validation", "test"]


def test_hub__a_split_by_name(source):
    chosen = f"{source}::validation"
    examples, _ = read(chosen, "test", "text", "text", "label")
    assert examples.ids == ["validation:1"]
    assert own_splits(chosen) == ()


def test_hub__one_split_alone(tmp_path):
    make([0, 1]).save_to_disk(str(tmp_path / "one"))
    source = f"hf:{tmp_path / 'one'}"
    assert list(own_splits(source)) == ["train"]
    assert len(read(source, "train", "text", "text", "label")[0]) == 2


def test_hub__bad_ones_are_refused(source, tmp_path):
    for wrong, what in [((source, "test", "text", "label"), "'test' has no labels"),
                        ((source + "::dev", "train", "text", "label"), "no split 'dev'"),
                        ((source, "train", "txt", "label"), "did you mean 'text'"),
                        ((f"hf:{tmp_path}/gone", "train", "text", "label"), "no such file"),
                        (("hf:ftlab/none", "train", "text", "label"), "does not load")]:
        with pytest.raises(InputError, match=what):
            read(wrong[0], wrong[1], "text", *wrong[2:])


@pytest.mark.parametrize(("rows", "says"), [
    ([[0, 1], [-1, -1]], "row 2: the tags are missing"),
    ([[-1], [-1]], "'train' has no labels")])
def test_hub__tags_that_are_kept_secret(tmp_path, rows, says):
    features = datasets.Features({"tokens": datasets.List(datasets.Value("string")),
                                  "tags": datasets.List(datasets.ClassLabel(names=["O", "B-X"]))})
    words = [["a"] * len(row) for row in rows]
    datasets.Dataset.from_dict({"tokens": words, "tags": rows}, features).save_to_disk(
        str(tmp_path / "tags"))
    with pytest.raises(InputError, match=says):
        TokenClassification(f"hf:{tmp_path / 'tags'}").load()


def test_hub__without_datasets_says_what_to_install(source, monkeypatch):
    original = builtins.__import__

    def no_datasets(name, *rest):
        if name == "datasets":
            raise ModuleNotFoundError(name)
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", no_datasets)
    with pytest.raises(InputError, match=r'pip install "ftlab\[hub\]"'):
        read(source, "train", "text", "text", "label")
