"""`ftlab shift`: a shifted domain is far, the own one is the zero line."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from ftlab import cli
from ftlab.domain_shift import measure
from ftlab.errors import InputError
from ftlab.studies.study import load_study

UNRENDERED = True


@pytest.fixture
def study(tiny_resnet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A study of noisy images, darker or lighter by class, whose target has less light and contrast."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for domain, gain in (("day", 1.0), ("dusk", 0.4)):
        for name, level in (("dark", 90), ("light", 150)):
            (tmp_path / "images" / name).mkdir(parents=True, exist_ok=True)
            for number in range(30):
                pixels = gain * (level + 20 * random.normal(size=(32, 32, 3)))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(
                    tmp_path / "images" / name / f"{domain}_{number}.png")

    def write(trainer: dict | None = None, **arguments: object) -> Path:
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump({
            "name": "light", "select_by": "val/loss",
            "backbones": {"resnet": {"class_path": "HuggingFace", "init_args": {"source": str(tiny_resnet)}}},
            "datasets": {"day": {"class_path": "ImageClassification", "init_args": {
                "train": "images", "image_size": 32, **arguments}}},
            "techniques": {"full": "FullFineTuning", "probe": "LinearProbe"}, "trainer": trainer or {}}))
        return path

    return write


SHIFTED = {"columns": {"domain": r"/(\w+?)_"},
           "split": {"target": "dusk", "validation": 0.3, "test": 0.3}}


def test_shift__is_far_for_another_domain_and_near_for_the_own(study: Callable[..., Path]) -> None:
    zero, target = measure(load_study(study(**SHIFTED)), Path("results"))
    assert (zero.split, target.split) == ("test", "test.target")
    assert zero.found.rows == target.found.rows == 18
    assert target.found.low > 1 > zero.found.high > 0 > zero.found.low
    assert target.found.p < 0.01 < zero.found.p
    assert target.found.coral > zero.found.coral
    rows = list(csv.DictReader(Path("results/light/shift/shift.csv").read_text().splitlines()))
    assert [row["zero_line"] for row in rows] == ["True", "False"]
    assert float(rows[1]["a_distance"]) == target.found.a_distance
    again = list(measure(load_study(study(**SHIFTED)), Path("results")))
    assert again == [zero, target]


def test_shift__is_said_in_a_line_each(study: Callable[..., Path]) -> None:
    answer = CliRunner().invoke(cli.app, ["shift", str(study(**SHIFTED))])
    assert answer.exit_code == 0, answer.output
    lines = answer.output.splitlines()
    assert lines[0] == "day from resnet, 18 examples each, against validation:"
    assert lines[1].startswith("  test (zero line): A-distance ")
    assert lines[2].startswith("  test.target: A-distance ")
    assert lines[3] == "File: results/light/shift/shift.csv"


def test_shift__is_of_features_as_the_studys_trainer_has_them(
    study: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    monkeypatch.setattr("torch.set_num_threads", threads.append)
    whole, exact, rounded = (
        list(measure(load_study(study(trainer={"precision": name, "threads": 1}, **SHIFTED)),
                     Path("results")))[-1].found.coral
        for name in ("32-true", "64-true", "bf16-true"))
    assert exact == pytest.approx(whole, rel=1e-3) and exact != whole
    assert rounded == pytest.approx(whole, rel=0.2) and rounded != pytest.approx(whole, rel=1e-3)
    assert threads == [1, 1, 1]


def test_shift__of_a_stream_without_labels(study: Callable[..., Path]) -> None:
    dusk = sorted(path for path in Path("images").rglob("dusk*"))
    (stream := Path("bare.csv")).write_text("\n".join(["image", *map(str, dusk)]) + "\n")
    found = list(measure(load_study(study(**SHIFTED | {
        "split": {"validation": 0.3, "test": 0.3}, "columns": {},
        "beside": {"target": str(stream)}})), Path("results")))
    assert [each.split for each in found] == ["test", "beside.target"]
    assert found[1].found.coral > found[0].found.coral


@pytest.mark.parametrize(("arguments", "message"), [
    ({}, "its data are of one domain"),
    (SHIFTED | {"split": {"target": "dusk"}}, "6 examples in validation are too few"),
])
def test_shift__refuses(arguments: dict, message: str, study: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=message):
        list(measure(load_study(study(**arguments)), Path("results")))
