"""Named test sets beside train, validation and test, in every data module."""

from __future__ import annotations

import inspect
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from matrix import WORLDS, make_world
from sklearn.metrics import accuracy_score

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.examples import kind_of, sources
from ftlab.data.text import TextClassification
from ftlab.errors import InputError
from ftlab.studies.discover import family, members
from ftlab.techniques.linear_probe import LinearProbe
from ftlab.tracking.metric_facts import SPLIT
from ftlab.tracking.mlflow_values import name_of
from ftlab.training.evaluate import evaluate
from ftlab.training.execute import execute
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings

UNRENDERED = True


@pytest.mark.parametrize("name", WORLDS)
def test_named_set__is_read_and_measured_like_test(
    name: str, request: pytest.FixtureRequest
) -> None:
    backbone, data = make_world(name, request.getfixturevalue)()
    data.sources["test.again"] = data.sources["train"]
    data.load()
    data.connect(backbone, seed=0)
    whole = [data.splits[split] for split in ("train", "validation", "test")]
    again = data.splits["test.again"]
    if not all(data.sources[split] for split in ("validation", "test")):
        assert set(again.ids) >= {i for part in whole for i in part.ids}
    assert "test.again" in data.describe()
    model = backbone.build(data.task)
    metrics, records = evaluate(model, data.eval_loader("test.again"), data.task, again.ids, dict)
    assert records["id"] == again.ids
    assert "loss" in metrics


@pytest.mark.parametrize("cls", members(family("data")).values())
def test_every_data_module_takes_them(cls: type) -> None:
    parameter = inspect.signature(cls).parameters["tests"]
    assert parameter.default is None


def test_fingerprint__follows_a_named_set(reviews: Path, tmp_path: Path) -> None:
    def fingerprint(**arguments: object) -> str:
        data = TextClassification(str(reviews), **arguments)  # type: ignore[arg-type]  # as given
        data.load()
        return data.fingerprint

    other = tmp_path / "other.csv"
    other.write_text(reviews.read_text())
    assert fingerprint() == fingerprint(tests={})
    assert fingerprint() != fingerprint(tests={"a": str(other)})


def test_run__measures_each_and_keeps_its_predictions(
    tiny_bert: Path, reviews: Path, tmp_path: Path
) -> None:
    lines = reviews.read_text().splitlines(keepends=True)
    far = tmp_path / "far.csv"
    far.write_text("".join([lines[0], *lines[5:25]]))
    (tmp_path / "run").mkdir()
    run = Run(HuggingFace(str(tiny_bert), pooling="mean"),
              TextClassification(str(reviews), max_length=16, tests={"far": str(far)}),
              LinearProbe(), TrainerSettings(max_epochs=1), 0, "val/loss", tmp_path / "run")
    metrics = execute(run, lambda event: None)
    kept = pq.read_table(tmp_path / "run" / "predictions" / "test.far.parquet").to_pydict()
    assert len(kept["id"]) == 20
    assert metrics["test.far/accuracy"] == pytest.approx(
        accuracy_score(kept["target"], kept["prediction"]))
    assert metrics["test/accuracy"] >= 0


def test_named_set__with_an_unknown_label_is_refused(reviews: Path, tmp_path: Path) -> None:
    far = tmp_path / "far.csv"
    far.write_text("text,label\na film,nowhere\n")
    data = TextClassification(str(reviews), tests={"far": str(far)})
    with pytest.raises(InputError, match=r"test\.far split of .*far\.csv, far:1.*nowhere"):
        data.load()


@pytest.mark.parametrize("name", ["", ".", "a/b", "a@b", "ä", " x"])
def test_name__is_one_that_a_file_can_have(name: str) -> None:
    with pytest.raises(ValueError, match="is not a name"):
        sources("a", None, None, {name: "b"})


def test_metric__of_a_named_set_may_be_written_with_an_at() -> None:
    assert name_of("test@far/accuracy") == "test.far/accuracy"
    assert name_of("cost@int8/bytes") == "cost.int8/bytes"
    assert name_of("val@x/y") == "val_x/y"
    assert SPLIT.sub("", "test.far.v2/f1/sport") == "f1/sport"
    assert kind_of("test.far.v2") == "test"
