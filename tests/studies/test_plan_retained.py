"""`retain` in a study file: its place in a cell, and what is refused before anything runs."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ftlab.errors import InputError
from ftlab.studies.dry_run import estimate
from ftlab.studies.plan import plan
from ftlab.studies.run_job import fingerprints
from ftlab.studies.run_process import built
from ftlab.studies.study import load_study
from ftlab.studies.study_snapshot import record

Write = Callable[..., Path]


def texts(source: object) -> dict[str, Any]:
    return {"class_path": "TextClassification", "init_args": {"train": str(source), "max_length": 16}}


def test_retain__is_part_of_every_cell_and_nothing_without(
    write: Write, reviews: Path, tmp_path: Path
) -> None:
    plain = load_study(write())
    assert not any("retain" in cell.config for cell in plain.cells)
    assert "retain" not in record(plain)
    assert plan(plain).cells[0].retain_fingerprint == ""
    assert load_study(write(retain={})).cells == plain.cells
    made = load_study(write(retain={"old": texts(reviews)}))
    assert {cell.key.config for cell in made.cells}.isdisjoint(cell.key.config for cell in plain.cells)
    assert all(cell.retain["old"]["class_path"].endswith(".TextClassification") for cell in made.cells)
    path = tmp_path / "again.yaml"
    path.write_text(record(made), encoding="utf-8")
    assert load_study(path) == made
    cell = made.cells[0]
    run = built(tmp_path, made.specification(cell, 0))
    assert run.retain["old"].sources["train"] == str(reviews)
    assert built(tmp_path, {**made.specification(cell, 0), "search": True}).retain == {}
    planned = plan(made).cells[0]
    assert fingerprints(planned)["ftlab.retain_sha256"] == planned.retain_fingerprint != ""


@pytest.mark.parametrize(("retain", "error"), [
    ("reviews.csv", "retain: expected a mapping"),
    ({"an old one": "TextClassification"}, "retain: retain: 'an old one' is not a name"),
    ({"old": "TextClassificatio"}, "retain.old: there is no DataModule"),
    ({"old": {"class_path": "TextClassification", "init_args": {"trian": "x"}}}, "retain.old.init_args.trian"),
])
def test_retain__written_wrongly_is_refused_at_its_place(write: Write, retain: Any, error: str) -> None:
    with pytest.raises(InputError, match=re.escape(error)):
        load_study(write(retain=retain))


def test_retain__that_the_backbone_cannot_read_is_refused_before_anything_runs(
    write: Write, shapes: Path, tmp_path: Path
) -> None:
    images = {"class_path": "ImageClassification", "init_args": {"train": str(shapes)}}
    with pytest.raises(InputError, match=r"probe on reviews from bert: retain/old: ") as caught:
        plan(load_study(write(retain={"old": images})))
    assert caught.value.mend and "\n" not in caught.value.what + caught.value.mend
    with pytest.raises(InputError, match=r"retain/old: .*no\.csv"):
        plan(load_study(write(retain={"old": texts(tmp_path / "no.csv")})))
    numbers = tmp_path / "numbers.csv"
    numbers.write_text("text,label\n" + "".join(f"a film {n},{n / 7}\n" for n in range(40)))
    scores = {"class_path": "TextClassification",
              "init_args": {"train": str(numbers), "max_length": 16, "task": "Regression"}}
    with pytest.raises(InputError, match="retain/old: a probe tells classes"):
        plan(load_study(write(retain={"old": scores})))


def test_dry_run__says_what_is_retained(write: Write, reviews: Path) -> None:
    one = {"techniques": {"lora": "LoRA"}, "seeds": [0]}
    for retain, expected in (({"old": texts(reviews)}, True), (None, False)):
        made, console = estimate(load_study(write(retain=retain, **one))), Console(file=io.StringIO())
        console.print(made.rich())
        said = console.file.getvalue()
        assert ("Retained, measured after each run and once before:" in said) is expected
        assert ("old: up to 0." in said) is expected, said
        (here,) = made.foreseen.values()
        assert (here.retained.keys() == {"old"}) is expected
