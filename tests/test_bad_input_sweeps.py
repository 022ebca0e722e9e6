"""Bad sweeps through the here door: one line what, one how, exit code 2, nothing written."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from scripted import ScriptedEngine, epochs, write_sweep

from ftlab.studies.engine import Event

UNRENDERED = True
Here = Callable[..., tuple[int, str, str]]


def contents(folder: Path) -> dict[Path, bytes]:
    """All that is written there; an index of SQLite's notes readers too."""
    return {path: path.read_bytes() for path in folder.rglob("*")
            if path.is_file() and not path.name.endswith("-shm")}


def refused(here: Here, folder: Path, *arguments: object) -> str:
    """What is said of a command that is refused."""
    before = contents(folder)
    code, _, errors = here(*arguments)
    assert code == 2, errors
    assert "Traceback" not in errors
    what, *mend = errors.strip().splitlines()
    assert what.startswith("error: ")
    assert [line[:8] for line in mend] == ["  mend: "]
    assert contents(folder) == before
    return errors


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "hyperparameter": ({"spaces": {"probe": {"rank": {"choices": [4]}}}},
                       "sweep.yaml:6: spaces.probe.rank: LinearProbe has no argument 'rank'"),
    "empty range": ({"spaces": {"probe": {"lr": {"low": 1.0, "high": 1.0}}}}, "is empty"),
    "reversed range": ({"spaces": {"probe": {"lr": {"low": 2.0, "high": 1.0}}}}, "is reversed"),
    "log from zero": ({"spaces": {"probe": {"lr": {"low": 0, "high": 1, "log": True}}}}, "begin at 0"),
    "wrong type": ({"spaces": {"probe": {"lr": {"choices": ["fast"]}}}}, "'fast' is refused"),
    "pruner": ({"pruner": "Median", "objective": ["val/accuracy", "val/loss"]}, "several objectives"),
    "key": ({"trails": 3}, "did you mean 'trials'"),
    "technique": ({"spaces": {"prob": {}}}, "did you mean 'probe'"),
    "sampler": ({"sampler": "TPEE"}, "did you mean 'TPE'"),
    "no trials": ({"trials": 0}, "trials: expected a whole number above 0, got 0"),
    # what takes a look at data, machine or stores
    "objective": ({"objective": "val/acuracy"}, "did you mean 'accuracy'"),
    "no package": ({"sampler": "CmaEs", "trials": 16}, "pip install cmaes"),
    "scheme": ({"storage": "mysql://here/db"}, "neither a journal file nor PostgreSQL"),
    "no folder": ({"storage": "none/optuna.journal"}, "none"),
    "a folder": ({"storage": "."}, "storage"),
    "no server": ({"storage": "postgresql://me:secret@127.0.0.1:9/db"}, "storage postgresql://"),
}


@pytest.mark.parametrize("case", BAD)
def test_sweep__refuses_before_anything_is_written(
    case: str, here: Here, tmp_path: Path, tiny_bert: Path, reviews: Path
) -> None:
    keys, said = BAD[case]
    write_sweep(tmp_path, tiny_bert, reviews, **keys)
    errors = refused(here, tmp_path, "sweep", "sweep.yaml")
    assert said in errors, errors
    assert "secret" not in errors


OPTIONS: dict[str, tuple[list[str], str]] = {
    "no sweep": (["none.yaml"], "none.yaml: no such file"),
    "no worker": (["sweep.yaml", "--workers", "0"], "at least one is needed"),
    "store": (["sweep.yaml", "--tracking-uri", "file:./mlruns"], "not a database"),
    "results": (["sweep.yaml", "--results", "study.yaml/here"], "is no folder"),
    "address": (["sweep.yaml", "--address", "here:1"], "only a Ray cluster has one"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_sweep__refuses_bad_options(
    case: str, here: Here, tmp_path: Path, tiny_bert: Path, reviews: Path
) -> None:
    arguments, said = OPTIONS[case]
    write_sweep(tmp_path, tiny_bert, reviews)
    assert said in refused(here, tmp_path, "sweep", *arguments)


def test_sweep__refuses_more_devices_than_there_are(
    here: Here, tmp_path: Path, tiny_bert: Path, reviews: Path
) -> None:
    trainer = {"devices": 999, "accelerator": "cpu"}
    data = {"class_path": "TextClassification", "init_args": {
        "train": str(reviews), "max_length": 32, "batch_size": 999}}
    write_sweep(tmp_path, tiny_bert, reviews, {"trainer": trainer, "datasets": {"reviews": data}})
    assert "a run wants 999 devices" in refused(here, tmp_path, "sweep", "sweep.yaml")


def test_sweep__refuses_a_changed_study_under_the_old_name(
    here: Here, tmp_path: Path, tiny_bert: Path, reviews: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def play(said: dict[str, Any], folder: Path) -> Iterator[Event]:
        yield from epochs(folder, [0.5])

    monkeypatch.setattr("ftlab.studies.engines.make_engine", lambda *_: ScriptedEngine(play))
    write_sweep(tmp_path, tiny_bert, reviews, trials=2)
    code, _, errors = here("sweep", "sweep.yaml")
    assert code == 0, errors
    for changed in ({"techniques": {"lora": "LoRA"}}, {"name": "other"},
                    {"trainer": {"max_epochs": 9}}):
        write_sweep(tmp_path, tiny_bert, reviews, changed, trials=2)
        said = refused(here, tmp_path, "sweep", "sweep.yaml")
        assert "holds another sweep called sweep" in said
        assert "give this sweep another name" in said
    write_sweep(tmp_path, tiny_bert, reviews, trials=2)
    assert here("sweep", "sweep.yaml")[0] == 0


def test_status__of_nothing_writes_nothing(
    here: Here, tmp_path: Path, tiny_bert: Path, reviews: Path
) -> None:
    write_sweep(tmp_path, tiny_bert, reviews)
    assert "begin it: ftlab sweep" in refused(here, tmp_path, "status", "sweep.yaml")


def test_sweep__a_path_is_from_the_present_folder(
    here: Here, tmp_path: Path, tiny_bert: Path, reviews: Path
) -> None:
    path = write_sweep(tmp_path, tiny_bert, reviews)
    (tmp_path / "sweeps").mkdir()
    shutil.move(path, tmp_path / "sweeps" / "sweep.yaml")
    said = yaml.safe_load((tmp_path / "sweeps" / "sweep.yaml").read_text())
    (tmp_path / "sweeps" / "sweep.yaml").write_text(yaml.safe_dump(said | {
        "study": "../study.yaml"}, sort_keys=False))
    errors = refused(here, tmp_path, "sweep", "sweeps/sweep.yaml")
    assert "sweeps/sweep.yaml:1: study: no such file: ../study.yaml" in errors
    assert "from the present folder" in errors
