from collections import Counter
from pathlib import Path

import pytest
from detection import write_voc
from hypothesis import given
from hypothesis import strategies as st

from ftlab.data.label_coverage import keep_known
from ftlab.data.object_detection import ObjectDetection
from ftlab.data.splits import Split
from ftlab.data.text import TextClassification
from ftlab.data.token_classification import TokenClassification
from ftlab.errors import InputError
from ftlab.tasks.classification import Classification
from ftlab.tasks.multi_label import MultiLabel

SEEDS = range(8)  # the rare label is drawn into a carved split for some of them


def lines(folder: Path, rare: str = "rare|a") -> str:
    path = folder / "texts.csv"
    labels = [rare, *(["a", "b", "a|b"] * 13)]
    path.write_text("text,label\n" + "".join(f"text {i},{x}\n" for i, x in enumerate(labels)))
    return str(path)


@pytest.mark.parametrize("seed", SEEDS)
def test_carve__labels_are_in_train(seed: int, tmp_path: Path) -> None:
    rows = [("good O\nplot B-X\n" if i else "bad B-RARE\n") for i in range(40)]
    (tmp_path / "all.conll").write_text("\n".join(rows))
    images = {f"{i:02}": [("green" if i == 0 else "red", 4.0, 4.0, 30.0, 30.0)] for i in range(20)}
    split = Split(seed=seed)
    for data in (TextClassification(lines(tmp_path), split=split, task=MultiLabel()),
                 TokenClassification(str(tmp_path / "all.conll"), split=split),
                 ObjectDetection(str(write_voc(tmp_path / "voc", images)), split=split)):
        data.load()
        ids = [i for part in data.splits.values() for i in part.ids]
        assert len(set(ids)) == len(ids) == (20 if isinstance(data, ObjectDetection) else 40)
        assert all(len(part) for part in data.splits.values())


@given(st.lists(st.sets(st.sampled_from("abcdefgh")), min_size=4, max_size=20), st.integers(0, 9))
def test_keep_known__moves_what_must_and_no_more(labels: list[set[str]], cut: int) -> None:
    raw = ["|".join(sorted(names)) or "-" for names in labels]
    first = min(cut, len(raw) - 2)
    parts = {"train": list(range(first, len(raw))), "test": list(range(first))}
    before = {name: list(positions) for name, positions in parts.items()}
    known = {name for i in before["train"] for name in labels[i]}
    wanted = [i for i in before["test"] if labels[i] <= known]
    if len(known) < 2:  # there is no training set, which `load` says
        wanted = before["test"]
    if before["test"] and not wanted:
        with pytest.raises(InputError, match="all examples drawn for test have labels that no"):
            keep_known(parts, raw, MultiLabel(nothing="-"), "here")
        return
    keep_known(parts, raw, MultiLabel(nothing="-"), "here")
    assert parts["test"] == wanted
    assert sorted(parts["train"] + parts["test"]) == list(range(len(raw)))


def test_keep_known__leaves_classes_and_wrong_labels_alone() -> None:
    parts = {"train": [1, 2], "test": [0]}
    keep_known(parts, ["c", "a", "b"], Classification(), "here")  # carved by class already
    keep_known(parts, ["a||b", "a", "b"], MultiLabel(), "here")
    assert parts == {"train": [1, 2], "test": [0]}


def test_wrong_label__is_refused_with_its_place(tmp_path: Path) -> None:
    said = []
    for seed in SEEDS:
        data = TextClassification(lines(tmp_path, "a||b"), task=MultiLabel(), split=Split(seed=seed))
        with pytest.raises(InputError, match="has an empty label in it") as error:
            data.load()
        said.append(error.value.what)
    assert all("texts:1: " in what for what in said)


def test_carve__stays_what_it_was_where_train_has_all(tmp_path: Path) -> None:
    data = TextClassification(lines(tmp_path, "a"), task=MultiLabel())
    data.load()
    assert Counter({name: len(part) for name, part in data.splits.items()}) == {
        "train": 28, "validation": 4, "test": 8}
