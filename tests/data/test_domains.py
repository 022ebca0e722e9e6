"""Two domains in one source: who trains, who comes along without labels, who is tested."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from matrix import make_world

from ftlab import cli
from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.splits import Split
from ftlab.data.text import TextClassification
from ftlab.errors import InputError
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.techniques.mcc import MCC
from ftlab.techniques.untuned import Untuned
from ftlab.training.execute import execute
from ftlab.training.run import Run, Stage
from ftlab.training.trainer_settings import TrainerSettings

UNRENDERED = True
WORDS = {"good": "a good film", "bad": "a bad plot"}


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    """Writes texts of some sites, each with both labels in turn."""

    def write(name: str = "texts.csv", **sizes: int) -> Path:
        rows = [{"text": f"{WORDS[label]} {'very ' * (i % 5)}{site} {i}", "label": label, "site": site}
                for site, size in sizes.items() for i in range(size)
                for label in [["good", "bad"][i % 2]]]
        path = tmp_path / name
        pd.DataFrame(rows).sample(frac=1, random_state=0).to_csv(path, index=False)
        return path

    return write


def data_of(table: Path, target: str | None = "b", source: str | None = None, **more: Any
            ) -> TextClassification:
    data = TextClassification(str(table), columns={"domain": "site"}, max_length=16, batch_size=8,
                              split=Split(test=0.25, target=target, source=source), **more)
    data.load()
    return data


def sites(data: TextClassification) -> dict[str, set[str]]:
    return {name: set(examples.columns["domain"]) for name, examples in data.splits.items()}


def test_target__comes_along_unlabelled_and_is_a_test_set(table: Any) -> None:
    path = table(a=40, b=40, c=24)
    data = data_of(path)
    others = {"a", "c"}
    assert sites(data) == {"train": others, "validation": others, "test": others,
                           "test.target": {"b"}, "beside.target": {"b"}}
    ids = [place for examples in data.splits.values() for place in examples.ids]
    assert len(set(ids)) == len(ids)
    assert len(data.splits["test.target"]) == 10
    # the validation part of the target is nowhere
    assert 40 - 10 - len(data.splits["beside.target"]) == 4
    assert data.unlabelled_streams == {"beside.target"}
    assert data.measured == ["validation", "test", "test.target"]
    assert sites(data_of(path, source="a"))["train"] == {"a"}


def test_target_as_source__is_tested_on_the_same_examples(table: Any) -> None:
    path = table(a=40, b=40)
    to, oracle = data_of(path, source="a"), data_of(path, source="b")
    assert oracle.splits["test"].ids == oracle.splits["test.target"].ids == to.splits["test.target"].ids
    assert oracle.splits["train"].ids == to.splits["beside.target"].ids
    assert set(sites(oracle)["validation"]) == {"b"}
    plain = TextClassification(str(path), columns={"domain": "site"}, split=Split(test=0.25))
    plain.load()
    assert "beside.target" not in plain.splits


def test_given_splits__are_taken_apart_too(table: Any) -> None:
    train, test, validation = (table(f"{n}.csv", a=20, b=20) for n in ("one", "two", "three"))
    data = data_of(train, validation=str(validation), test=str(test))
    assert {name: len(examples) for name, examples in data.splits.items()} == {
        "train": 20, "validation": 20, "test": 20, "test.target": 20, "beside.target": 20}
    only = table("four.csv", a=12)
    assert len(data_of(train, test=str(only)).splits["test.target"]) == 6  # carved: there is none


def test_target_labels__are_in_no_batch(table: Any, tiny_bert: Path) -> None:
    data = data_of(table(a=24, b=24))
    data.connect(HuggingFace(str(tiny_bert), pooling="mean"), seed=0)
    batch = next(iter(data.with_streams(["target"]).train_dataloader()))
    assert "target" in batch
    assert "target" not in batch["beside"]["target"]
    assert set(data.splits["beside.target"].labels) == {"bad"}  # a stand-in for each


def test_oracle__is_a_stage_on_the_target(table: Any, tiny_bert: Path, tmp_path: Path) -> None:
    """Its score on the target's test set is that of a run on the target alone."""
    path, backbone = table(a=40, b=40), HuggingFace(str(tiny_bert), pooling="mean")
    settings = TrainerSettings(max_epochs=2)

    def made(technique: Any, data: Any, *before: Stage) -> dict[str, float]:
        folder = tmp_path / f"{type(technique).__name__}{len(before)}"
        folder.mkdir()
        return execute(Run(backbone, data, technique, settings, 3, "val/loss", folder, {}, True,
                           before), lambda event: None)

    stage = Stage(FullFineTuning(lr=1e-2), settings, data_of(path, source="b"), "val/loss", "all")
    oracle = made(Untuned(), data_of(path, source="a"), stage)
    alone = made(FullFineTuning(lr=1e-2), data_of(path, source="b"))
    assert oracle["test.target/loss"] == pytest.approx(alone["test/loss"], rel=1e-6)
    source = made(MCC(FullFineTuning(lr=1e-2)), data_of(path, source="a"))
    assert source["test.target/loss"] != oracle["test.target/loss"]
    assert oracle["cost/trainable_parameters"] == 0
    assert oracle["cost/before_seconds"] > 0


def test_untuned__goes_on_with_a_trained_head_alone(request: pytest.FixtureRequest) -> None:
    backbone, data = make_world("text_classification", request.getfixturevalue)()
    data.load()
    data.connect(backbone, 0)
    model = backbone.build(data.task)
    model.head_trained = True
    Untuned().bind(model, data.task)
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(("arguments", "what", "how"), [
    ({"split": {"target": "b"}}, "target is a value of the column 'domain'", "add columns: {domain: COLUMN}"),
    ({"split": {"source": "b"}}, "source: b wants a target", ""),
    ({"columns": {"domain": "site"}, "split": {"target": "bb"}}, "has no value 'bb'", "did you mean 'b'?"),
    ({"columns": {"domain": "site"}, "split": {"target": "b", "source": "x"}}, "has no value 'x'",
     "one of: a, b"),
    ({"columns": {"domain": "site"}, "split": {"target": "b"}, "tests": {"target": "texts.csv"}},
     "tests names 'target', and split: target makes one of this name", "leave out one of the two"),
    ({"columns": {"domain": "site"}, "split": {"target": "b"}, "train": "other.csv"},
     "the target domain 'b' has no class of the source domain: it has 0 and 1, and the source bad and good",
     "give both the same classes, by classes: {RAW: NAME}"),
    ({"columns": {"domain": "site"}, "split": {"target": "b"}, "train": "one.csv"},
     "all examples are of the domain 'b'", "add examples of another one"),
    ({"columns": {"domain": "site"}, "split": {"target": "b"}, "validation": "one.csv"},
     "the validation split has no example of the source domain", "the target's choose nothing"),
])
def test_bad_input__one_line_what_and_one_how(
    arguments: dict[str, Any], what: str, how: str, table: Any, tiny_bert: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = pd.read_csv(table(a=24, b=24))
    table("one.csv", b=24)
    renamed = rows.copy()
    renamed.loc[rows.site == "b", "label"] = renamed.label[rows.site == "b"].map({"good": "1", "bad": "0"})
    renamed.to_csv(tmp_path / "other.csv", index=False)
    study = tmp_path / "study.yaml"
    study.write_text(yaml.safe_dump({
        "name": "bad", "backbones": {"b": {"class_path": "HuggingFace", "init_args": {
            "source": str(tiny_bert), "pooling": "mean"}}},
        "datasets": {"d": {"class_path": "TextClassification",
                           "init_args": {"train": "texts.csv", "max_length": 16, **arguments}}},
        "techniques": {"full": "FullFineTuning"}, "select_by": "val/loss"}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(sys, "argv", ["ftlab", "check", str(study)])
    capfd.readouterr()
    with pytest.raises(SystemExit) as caught:
        cli.main()
    said = "".join(capfd.readouterr())
    assert caught.value.code == 2
    assert what in said
    assert how in said
    assert "Traceback" not in said


def test_load__refuses_what_check_refuses(table: Any) -> None:
    with pytest.raises(InputError, match="has no value 'z'"):
        data_of(table(a=12, b=12), target="z")
