"""Stores of earlier versions: opened, read, continued and exported by this one."""

from __future__ import annotations

import csv
import gzip
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from frozen.make import restore
from mlflow.store.db import utils
from scripted import HereEngine

from ftlab.errors import InputError
from ftlab.reports.study_results import read
from ftlab.studies.study import load_study
from ftlab.sweeps.study_runs import run_study
from ftlab.tracking.schema import check_schema
from ftlab.tracking.tracker import Tracker

UNRENDERED = True
Here = Callable[..., tuple[int, str, str]]
FROZEN = Path(__file__).resolve().parent.parent / "frozen"
VERSIONS = sorted(path.name for path in FROZEN.iterdir() if (path / "study.yaml").exists())


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def at_hand(uri: str) -> None:
    """Upgrade the tables as a user is told to."""
    try:
        check_schema(uri)
    except InputError as error:
        if "newer MLflow" in error.what:
            pytest.skip("written with a newer MLflow than the installed one")
        engine = utils.create_sqlalchemy_engine(uri)
        utils._upgrade_db(engine)
        engine.dispose()


@pytest.mark.parametrize("version", VERSIONS)
def test_frozen_store__is_opened_and_continued(version: str, here: Here, tmp_path: Path) -> None:
    uri, results = restore(FROZEN / version, tmp_path), tmp_path / "results" / "frozen"
    at_hand(uri)
    # what was trained by epochs is no result of the solver, and stays one of epochs
    study = tmp_path / "study.yaml"
    stored = read(load_study(study), Tracker(uri)).records.values()
    assert {record.key.technique for record in stored if record.finished} == {"lora"}
    study.write_text(study.read_text().replace(
        "probe: LinearProbe", "probe: {class_path: LinearProbe, init_args: {solver: null}}"))
    expected = {name: (FROZEN / version / "results" / "frozen" / name)
                for name in ("runs.csv", "table.csv")}

    code, _, errors = here("table", "study.yaml", "--tracking-uri", uri)
    assert code == 0, errors
    before = rows(expected["runs.csv"])
    assert len(before) == 4
    # a later version may know more of each run; what was known stays
    for old, new in zip(before, rows(results / "runs.csv")[:4], strict=True):
        assert {name: new[name] for name in old} == old
    for old, new in zip(rows(expected["table.csv"]), rows(results / "table.csv"), strict=True):
        # 0.1.0 gave seeds that are all equal an interval without width
        kept = [name for name in old if name not in ("ci_low", "ci_high") or float(old["std"]) > 0]
        assert {name: new.get(name) for name in kept} == {name: old[name] for name in kept}

    code, output, errors = here("compare", f"{uri}#frozen", expected["runs.csv"].parent)
    assert code == 0, output + errors

    run = next(row["run_id"] for row in before if row["technique"] == "lora")
    code, output, errors = here("predict", run, "reviews.csv", "--tracking-uri", uri)
    assert code == 0, errors
    assert "accuracy" in output
    code, output, errors = here("export", run, "--out", "model", "--tracking-uri", uri)
    assert code == 0, errors
    assert (tmp_path / "model" / "adapter_model.safetensors").exists()

    os.chdir(tmp_path)
    engine = HereEngine()
    outcome = run_study(load_study(Path("study.yaml")), uri, Path("results"), engine=engine)
    assert (outcome.finished, outcome.failed) == (6, 0), outcome.failures
    assert sum(len(said.get("members", [said])) for said in engine.started) == 2  # those of seed 2
    records = Tracker(uri).cells("frozen")
    for record in records:
        assert [run.seed for run in record.finished] == [0, 1, 2]
    again = {row["run_id"] for row in before}
    assert again < {run.run_id for record in records for run in record.finished}


def test_frozen_stores__name_no_machine() -> None:
    assert VERSIONS
    for path in FROZEN.rglob("*"):
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            assert path.stat().st_size < 300_000
            content = path.read_bytes()
            text = gzip.decompress(content) if path.suffix == ".gz" else content
            assert not re.search(rb"/(work|home|root|tmp|usr)/", text), path
