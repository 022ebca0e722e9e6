"""`ftlab reproduce`: a study run again, from its front door."""

import json
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
import yaml

from ftlab import reproduction
from ftlab.studies.run_job import StudyOutcome

UNRENDERED = True
Here = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path, reviews: Path) -> Path:
    """Results of a small study, which tests copy nothing into."""
    from ftlab import load_study, run_study, table

    folder = tmp_path_factory.mktemp("measured")
    path = folder / "small.yaml"
    backbone = {"source": str(tiny_bert), "pooling": "mean"}
    data = {"train": str(reviews), "max_length": 32, "batch_size": 8}
    path.write_text(yaml.safe_dump({
        "name": "small", "question": "Does it come out again?",
        "backbones": {"bert": {"class_path": "HuggingFace", "init_args": backbone}},
        "datasets": {"reviews": {"class_path": "TextClassification", "init_args": data}},
        "techniques": {"probe": {"class_path": "LinearProbe", "init_args": {"lr": 0.03}},
                       "lora": {"class_path": "LoRA", "init_args": {"lr": 0.01}}},
        "seeds": [0, 1], "trainer": {"max_epochs": 2},
    }, sort_keys=False))
    study = load_study(path)
    run_study(study, f"sqlite:///{folder / 'mlflow.db'}", folder / "results")
    table(study, f"sqlite:///{folder / 'mlflow.db'}", folder / "results")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_reproduce__a_study_comes_out_again(measured: Path, here: Here, tmp_path: Path) -> None:
    old = measured / "results" / "small"
    before = content(measured / "results")
    assert "study.yaml" in {path.name for path in old.iterdir()}
    code, output, errors = here("reproduce", old, "--into", "again", "--out", "drift.csv")
    assert code == 0, output + errors
    assert "small is reproduced, number for number" in output
    assert "Both came about alike" in output
    assert content(measured / "results") == before
    assert set(pd.read_csv(tmp_path / "drift.csv")["verdict"]) <= {"equal", "measured otherwise"}

    # another study's folder, and the old one, are refused
    for taken in (measured, old, tmp_path):
        code, _, errors = here("reproduce", old, "--into", taken)
        assert code == 2 and "holds something else" in errors
    assert content(measured / "results") == before

    # the store of the new runs against the old results: settings are known on both sides
    store = f"sqlite:///{tmp_path / 'again' / 'mlflow.db'}#small"
    code, output, errors = here("compare", old, store)
    assert code == 0 and "Both came about alike" in output, errors


@pytest.fixture
def ran(measured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs give what they gave before, at once."""
    def again(study: object, store: str, *_: object, **__: object) -> StudyOutcome:
        with (closing(sqlite3.connect(measured / "mlflow.db")) as old,
              closing(sqlite3.connect(store.removeprefix("sqlite:///"))) as new):
            old.backup(new)  # what is still in its log among it
        return StudyOutcome()

    monkeypatch.setattr(reproduction, "run_study", again)


def false(measured: Path, folder: Path, accuracies: list[float]) -> Path:
    """Results with other numbers than those that the study gives."""
    old = measured / "results" / "small"
    folder.mkdir()
    runs = pd.read_csv(old / "runs.csv")
    runs["test/accuracy"] = accuracies
    runs.to_csv(folder / "runs.csv", index=False)
    (folder / "study.yaml").write_bytes((old / "study.yaml").read_bytes())
    return folder


@pytest.mark.usefixtures("ran")
def test_reproduce__numbers_that_never_were_come_out_otherwise(
    measured: Path, here: Here, tmp_path: Path
) -> None:
    fake = false(measured, tmp_path / "fake", [0.1, 0.1, 0.2, 0.2])
    code, output, errors = here("reproduce", fake, "--only", "probe")
    assert code == 1, errors
    assert "small comes out otherwise, and fewer than three seeds do not say" in output
    assert "does not say its provenance" in " ".join(output.split())
    assert "lora" not in output
    kept = Path(re.search(r"The new runs: (.+)", output)[1])
    assert (kept / "mlflow.db").is_file()
    shutil.rmtree(kept)
    code, output, _ = here("reproduce", fake, "--only", "probe", "--seeds", "0")
    assert code == 1 and "fewer than three seeds do not say" in " ".join(output.split())
    shutil.rmtree(re.search(r"The new runs: (.+)", output)[1])


@pytest.mark.usefixtures("ran")
def test_reproduce__its_folder_goes_on_and_a_temporary_one_goes(
    measured: Path, here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = measured / "results" / "small"
    assert here("reproduce", old, "--into", "again")[0] == 0
    assert here("reproduce", old, "--into", "again")[0] == 0
    fake = false(measured, tmp_path / "fake", [0.1, 0.1, 0.2, 0.2])
    assert here("reproduce", fake, "--into", "again")[0] == 2  # begun for other runs
    (tmp_path / "room").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "room"))
    code, output, _ = here("reproduce", old)
    assert code == 0 and "The new runs:" not in output
    assert list((tmp_path / "room").iterdir()) == []


def test_reproduce__other_data_is_refused_before_it_trains(
    measured: Path, here: Here, tmp_path: Path
) -> None:
    old = measured / "results" / "small"
    code, _, errors = here("reproduce", old, "--into", "again", "--set",
                           "datasets.reviews.init_args.subset={limit: 20}")
    assert code == 2
    assert "data set reviews: not that of" in errors and "mend:" in errors
    assert not (tmp_path / "again" / "mlflow.db").exists()
    changed = tmp_path / "changed"
    changed.mkdir()
    for name in ("runs.csv", "study.yaml"):
        (changed / name).write_bytes((old / name).read_bytes())
    said = json.loads((old / "provenance.json").read_text())
    said["backbones"]["bert"] = "0" * 64
    (changed / "provenance.json").write_text(json.dumps(said))
    code, _, errors = here("reproduce", changed)
    assert code == 2 and "backbone bert: not that of" in errors


def test_reproduce__without_a_study_or_results_is_refused(
    measured: Path, here: Here, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "runs.csv").write_bytes((measured / "results/small/runs.csv").read_bytes())
    code, _, errors = here("reproduce", bare)
    assert code == 2 and "does not say its study" in errors
    code, _, errors = here("reproduce", measured / "small.yaml")
    assert code == 2 and "no results to reproduce" in errors
    assert here("reproduce", measured / "results/small", "--only", "prob")[0] == 2
