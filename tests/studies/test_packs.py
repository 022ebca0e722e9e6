"""Runs of one cell in one process: a study's, and what the process of a pack does."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import TESTS, records
from scripted import HereEngine, ScriptedEngine, ended, write_sweep

from ftlab.studies.engine import OUTPUT, SPECIFICATION, Event
from ftlab.studies.run_job import StudyOutcome
from ftlab.studies.shared_process import together_of
from ftlab.studies.study import Study, load_study
from ftlab.sweeps.coordinator import run_sweep
from ftlab.sweeps.study_runs import run_study
from ftlab.sweeps.sweep import load_sweep
from ftlab.tracking.records import RunRecord
from ftlab.tracking.tracker import Tracker

UNRENDERED = True
Write = Callable[..., Path]
PROBE = {"probe": {"class_path": "LinearProbe", "init_args": {"lr": 0.03, "solver": None}}}


@pytest.fixture
def go(tmp_path: Path, empty_store: Path) -> Callable[..., StudyOutcome]:
    """`go(study, engine)` in a store of its own."""
    def run(study: Study, engine: ScriptedEngine, name: str = "mlflow") -> StudyOutcome:
        if not (tmp_path / f"{name}.db").exists():
            shutil.copy(empty_store, tmp_path / f"{name}.db")
        return run_study(study, f"sqlite:///{tmp_path}/{name}.db", tmp_path / "results", engine=engine)

    return run


def runs_in(folder: Path, name: str = "mlflow") -> list[RunRecord]:
    return [run for cell in Tracker(f"sqlite:///{folder}/{name}.db").cells("small")
            for run in cell.runs]


def good(said: dict[str, Any], folder: Path) -> Iterator[Event]:
    score = 0.5 + said["seed"] / 100
    yield {"event": "metrics", "step": 3, "time": 1, "metrics": {"val/accuracy": score, "epoch": 1}}
    yield {"event": "done", "metrics": {"val/accuracy": score, "test/accuracy": score}}


def started(engine: ScriptedEngine) -> list[list[int]]:
    """Of each process, which seeds it was given."""
    return [[each["seed"] for each in said.get("members", (said,))] for said in engine.started]


def test_together_of__is_what_a_class_says_itself(write: Write) -> None:
    techniques = {"probe": {"class_path": "LinearProbe", "init_args": {"solver": None}}, "full": "FullFineTuning",
                  "derived": {"class_path": "faulty.Faulty"}}
    study = load_study(write(techniques=techniques), allow=["faulty"])
    assert [together_of(cell) for cell in study.cells] == ["heads", None, None]
    assert together_of(study.cells[0], shortcuts=False) is None
    two = load_study(write(techniques=PROBE, trainer={"devices": 2}))
    assert together_of(two.cells[0]) is None


def test_study__packs_the_seeds_of_a_cell_at_its_first(
    write: Write, tmp_path: Path, go: Callable[..., StudyOutcome]
) -> None:
    study = load_study(write(techniques={"full": "FullFineTuning", **PROBE}, seeds=[4, 1, 2]))
    engine = ScriptedEngine(good, 1)
    outcome = go(study.with_seeds([1]), engine)
    assert (outcome.finished, started(engine)) == (2, [[1], [1]])
    engine = ScriptedEngine(good, 1)
    outcome = go(study, engine)
    assert (outcome.finished, outcome.failures) == (6, [])
    assert started(engine) == [[4], [4, 2], [2]]
    scores = {run.seed: run.metrics["test/accuracy"] for run in runs_in(tmp_path)}
    assert scores == {4: 0.54, 1: 0.51, 2: 0.52}
    assert not (tmp_path / "results/small/.work").exists()


def test_study__tells_the_planner_how_many_runs_to_come_read_the_same(
    write: Write, go: Callable[..., StudyOutcome]
) -> None:
    other = {"class_path": "LinearProbe", "init_args": {"lr": 0.3, "solver": None}}
    study = load_study(write(techniques={"full": "FullFineTuning", **PROBE, "other": other},
                             seeds=[1, 2]))
    engine = ScriptedEngine(good, 1)
    go(study, engine)
    told = [[each["runs_to_come"] for each in said.get("members", (said,))] for said in engine.started]
    assert told == [[1], [4, 4], [2, 2], [1]]


def test_study__a_crash_costs_the_run_that_crashes_alone(
    write: Write, tmp_path: Path, go: Callable[..., StudyOutcome]
) -> None:
    def play(said: dict[str, Any], folder: Path) -> Iterator[Event]:
        (folder / "checkpoint").mkdir()
        (folder / "checkpoint/model").write_text(str(said["seed"]))
        if said["seed"] == 1:
            yield ended(-signal.SIGSEGV, lost=True)
        if said["seed"] == 2:
            yield {"event": "failed", "reason": "RuntimeError: no luck"}
        else:
            yield from good(said, folder)

    study = load_study(write(techniques=PROBE, seeds=[0, 1, 2, 3]))
    engine = ScriptedEngine(play, 1)
    outcome = go(study, engine)
    assert started(engine) == [[0, 1, 2, 3], [0], [1], [2], [3]]
    assert (outcome.finished, outcome.failed) == (2, 2)
    assert [failure.split(": ")[0] for failure in outcome.failures] == [
        "probe on reviews from bert, seed 1", "probe on reviews from bert, seed 2"]
    client = Tracker(f"sqlite:///{tmp_path}/mlflow.db")._client
    experiment = client.get_experiment_by_name("small").experiment_id
    stored = client.search_runs([experiment], "tags.`ftlab.kind` = 'run'")
    assert sorted(run.info.status for run in stored) == [*["FAILED"] * 2, *["FINISHED"] * 2,
                                                         *["KILLED"] * 4]


def test_study__a_lost_machine_takes_what_was_done_there(
    write: Write, tmp_path: Path, go: Callable[..., StudyOutcome]
) -> None:
    def play(said: dict[str, Any], folder: Path) -> Iterator[Event]:
        yield from good(said, folder)
        if folder.name.isdigit() and said["seed"] == 1:
            yield ended(-signal.SIGKILL, lost=True, machine_lost=True, reason="lost with n1")

    engine = ScriptedEngine(play, 1)
    assert go(load_study(write(techniques=PROBE)), engine).finished == 2
    assert started(engine) == [[0, 1], [0], [1]]


def test_study__of_heads_is_what_it_is_without_packs(
    write: Write, tmp_path: Path, go: Callable[..., StudyOutcome]
) -> None:
    """Really trained, in float64: metrics, checkpoints and predictions of three seeds."""
    trainer = {"max_epochs": 2, "precision": "64-true", "accelerator": "cpu"}
    study = load_study(write(techniques=PROBE, seeds=[0, 1, 2], trainer=trainer))
    found = []
    for name, each in (("packed", study), ("plain", study.with_shortcuts(False))):
        engine = HereEngine()
        assert go(each, engine, name).failures == []
        assert started(engine) == ([[0, 1, 2]] if name == "packed" else [[0], [1], [2]])
        runs = runs_in(tmp_path, name)
        assert [run.seed for run in runs] == [0, 1, 2]
        found.append(runs)
        artifacts = {path.path for path in Tracker(f"sqlite:///{tmp_path}/{name}.db")
                     ._client.list_artifacts(runs[1].run_id)}
        assert {"checkpoint", "predictions", "events.jsonl", SPECIFICATION} <= artifacts
    for packed, plain in zip(*found, strict=True):
        assert packed.metrics.keys() >= {"val/accuracy", "test/loss", "cost/train_seconds"}
        for name in ("val/accuracy", "val/loss", "test/accuracy", "test/loss", "best_epoch"):
            assert packed.metrics[name] == pytest.approx(plain.metrics[name], rel=1e-9), name
    assert len({run.metrics["test/loss"] for run in found[0]}) == 3, "seeds differ"


def test_process__a_pack_s_member_ends_after_its_wish(write: Write, tmp_path: Path) -> None:
    (cell,) = load_study(write(techniques=PROBE, trainer={"max_epochs": 5})).cells
    members = [{**cell.config, "seed": seed, "search": True} for seed in (0, 1)]
    (tmp_path / "pack/1").mkdir(parents=True)
    (tmp_path / "pack/1/stop").touch()
    said = {"members": members, "trainer": cell.trainer}
    (tmp_path / "pack" / SPECIFICATION).write_text(json.dumps(said))
    engine = HereEngine()
    engine.start(tmp_path / "pack")
    done: dict[int, dict[str, float]] = {}
    while len(done) < 2:
        for _, event in engine.events(0):
            if event["event"] == "done":
                done[event["member"]] = event["metrics"]
    assert [done[0]["pruned"], done[1]["pruned"]] == [0.0, 1.0]


def test_sweep__processes_that_end_in_every_way(
    tmp_path: Path, tiny_bert: Path, reviews: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the real engine: the segmentation fault costs its own trial."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(TESTS), prepend=os.pathsep)
    path = write_sweep(
        tmp_path, tiny_bert, reviews,
        {"techniques": {"company": {"class_path": "company.Company"}}, "trainer": {"max_epochs": 1}},
        trials=4, sampler="BruteForce",
        spaces={"company": {"how": {"choices": ["well", "segfault", "raise"]}}})
    outcome = run_sweep(load_sweep(path, allow=["company"]), workers=1)
    (standing,) = outcome.standings
    ends = {trial.params["how"]: trial.state.name for trial in standing.trials}
    assert ends == {"well": "COMPLETE", "segfault": "FAIL", "raise": "FAIL"}
    assert records(tmp_path)["LOST", "KILLED"] == 3 + 2, "the pack's, and two attempts more"
    for failure in outcome.failures:
        output = Path(failure.partition("output: ")[2].rstrip(")"))
        assert output.name == OUTPUT
        assert ("no luck" in output.read_text()) == ("no luck" in failure)
