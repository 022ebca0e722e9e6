"""Stages in a study file: what they are held to before anything runs, and their place in a cell."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from masked import save_bert, save_vit
from matrix import TECHNIQUES, page_says

from ftlab.errors import InputError
from ftlab.studies.plan import plan
from ftlab.studies.study import Study, load_study
from ftlab.studies.study_snapshot import record
from ftlab.techniques.wrapper import Wrapper

Write = Callable[..., Path]


@pytest.fixture
def study(write: Write) -> Callable[..., Study]:
    """A study of one technique with stages, and the same without."""

    def make(before: Any, technique: str = "FullFineTuning") -> Study:
        return load_study(write(techniques={
            "alone": technique, "after": {"class_path": technique, "before": before}}))

    return make


def test_stages__are_part_of_a_cell(study: Callable[..., Study], tmp_path: Path) -> None:
    made = study([{"technique": "LinearProbe", "trainer": {"max_epochs": 5}, "carry": "all"}])
    alone, after = made.cells
    assert alone.before == []
    assert "before" not in alone.config
    (stage,) = after.before
    assert stage["trainer"] == {**after.trainer, "max_epochs": 5}
    assert stage["technique"]["class_path"].endswith(".LinearProbe")
    assert alone.key.config != after.key.config
    assert study([{"technique": "LinearProbe"}]).cells[1].key.config != after.key.config
    path = tmp_path / "again.yaml"
    path.write_text(record(made), encoding="utf-8")
    assert load_study(path) == made


def test_stages__that_fit_are_planned(study: Callable[..., Study], reviews: Path) -> None:
    data = {"class_path": "TextClassification",
            "init_args": {"train": str(reviews), "max_length": 16}}
    made = plan(study([{"technique": "LoRA", "data": data}, {"technique": "LinearProbe"}]))
    assert [bool(cell.before_fingerprint) for cell in made.cells] == [False, True]
    assert [cell.trainable for cell in made.cells] == [made.cells[0].trainable] * 2


@pytest.mark.parametrize(("before", "error"), [
    ("LinearProbe", "techniques.after.before: expected a list of stages"),
    (["LinearProbe"], "before.0: expected a mapping"),
    ([{}], "before.0: a stage needs a technique"),
    ([{"technique": "LinearProbe", "epochs": 3}], "before.0.epochs: unknown key"),
    ([{"technique": "LinearProb"}], "before.0.technique: there is no Technique"),
    ([{"technique": "LinearProbe", "carry": "head"}], "before.0.carry: expected backbone or all"),
    ([{"technique": "LinearProbe", "select_by": "test/loss"}],
     "'test/loss' is not a validation metric"),
    ([{"technique": "LinearProbe", "trainer": {"epochs": 3}}], "before.0.trainer.epochs"),
    ([{"technique": "LinearProbe", "data": "Nothing"}], "before.0.data: there is no DataModule"),
])
def test_stages__written_wrongly_are_refused_at_their_place(
    study: Callable[..., Study], before: Any, error: str
) -> None:
    with pytest.raises(InputError, match=re.escape(error)):
        study(before)


def test_stages__that_cannot_run_are_refused_before_anything_does(
    study: Callable[..., Study], reviews: Path, tmp_path: Path
) -> None:
    missing = {"class_path": "TextClassification", "init_args": {"train": str(tmp_path / "no.csv")}}
    with pytest.raises(InputError, match=r"after on reviews from bert.*no\.csv"):
        plan(study([{"technique": "LinearProbe", "data": missing}]))
    with pytest.raises(InputError, match=r"trains nothing|needs"):
        plan(study([{"technique": "ZeroShot"}]))
    with pytest.raises(InputError, match="one device"):
        plan(study([{"technique": "LinearProbe", "trainer": {"devices": 2}}]))
    three = tmp_path / "three.csv"
    three.write_text(reviews.read_text() + "".join(f"a plot {n},other\n" for n in range(9)))
    data = {"class_path": "TextClassification", "init_args": {"train": str(three), "max_length": 16}}
    with pytest.raises(InputError, match=r"head/.*let it carry: backbone|differ at head"):
        plan(study([{"technique": "LinearProbe", "data": data, "carry": "all"}]))
    with pytest.raises(InputError, match=r"no metric|nothing"):
        plan(study([{"technique": "LinearProbe", "select_by": "val/nothing"}]))


def test_stages__that_carry_a_head_leave_none_at_random(write: Write) -> None:
    def planned(carry: str) -> None:
        plan(load_study(write(techniques={"wise": {
            "class_path": "WiSEFT", "init_args": {"technique": "FullFineTuning"},
            "before": [{"technique": "LinearProbe", "carry": carry}]}})))

    planned("all")
    with pytest.raises(InputError, match="the new head is random"):
        planned("backbone")


def test_stages__that_see_test_examples_are_refused(write: Write, reviews: Path, tmp_path: Path) -> None:
    bert = {"class_path": "HuggingFace", "init_args": {"source": str(save_bert(tmp_path / "bert")),
                                                       "pooling": "mean"}}

    other = tmp_path / "other.csv"
    other.write_text("\n".join(["text", *(f"a film {n}" for n in range(20))]) + "\n")

    def planned(**settings: Any) -> None:
        corpus = {"class_path": "MaskedLM", "init_args": {"train": str(reviews), "max_length": 16,
                                                          **settings}}
        head = {"technique": "LinearProbe", "data": corpus, "carry": "all"}
        plan(load_study(write(backbones={"bert": bert}, techniques={"after": {
            "class_path": "LinearProbe",
            "before": [head, {"technique": "FullFineTuning", "data": corpus}]}})))

    planned()
    planned(train=str(other))  # another corpus
    shutil.copy(reviews, other)
    with pytest.raises(InputError, match=r"before/0: its data have test examples of what follows, \d+ where"):
        planned(train=str(other), split={"seed": 1})
    with pytest.raises(InputError, match="before/0: its data have test examples"):  # one source in common
        planned(train=str(other), validation=str(reviews), split={"seed": 1})
    with pytest.raises(InputError, match=r"before/0: its data have test examples of what follows, \d+ where"):
        planned(split={"seed": 1})


def test_masked_images__are_planned_before_a_classifier(write: Write, shapes: Path, tmp_path: Path) -> None:
    vit = {"class_path": "HuggingFace", "init_args": {"source": str(save_vit(tmp_path / "vit"))}}

    def planned(**settings: Any) -> None:
        corpus = {"class_path": "MaskedImages", "init_args": {
            "train": str(shapes), "masking": {"size": 8}, **settings}}
        head = {"technique": "LinearProbe", "data": corpus, "carry": "all"}
        plan(load_study(write(
            backbones={"vit": vit},
            datasets={"shapes": {"class_path": "ImageClassification", "init_args": {"train": str(shapes)}}},
            techniques={"after": {"class_path": "LinearProbe", "before": [
                head, {"technique": "FullFineTuning", "data": corpus}]}})))

    planned()
    with pytest.raises(InputError, match=r"before/0: its data have test examples"):
        planned(split={"seed": 1})
    with pytest.raises(InputError, match="before/0: masking: squares of 32 pixels do not divide"):
        planned(masking={})


def test_masked_language__goes_before_every_technique(write: Write, reviews: Path, tmp_path: Path) -> None:
    bert = {"class_path": "HuggingFace", "init_args": {"source": str(save_bert(tmp_path / "bert")),
                                                       "pooling": "mean"}}
    corpus = {"class_path": "MaskedLM", "init_args": {"train": str(reviews), "max_length": 16}}
    stage = {"technique": "FullFineTuning", "data": corpus}
    names = [name for name, worlds in page_says().items() if "text_classification" in worlds
             and not issubclass(TECHNIQUES[name], Wrapper) and TECHNIQUES[name].trains]
    films = {"class_path": "TextClassification", "init_args": {"train": str(reviews), "max_length": 16}}
    study = load_study(write(backbones={"bert": bert}, datasets={"films": films}, techniques={
        name: {"class_path": name, "before": [stage]} for name in names}))
    made = plan(study)
    assert [planned.cell.key.technique for planned in made.cells] == names
    assert len(names) > 30
    assert len({planned.before_fingerprint for planned in made.cells}) == 1
