"""What MLflow holds of a trial, from the run's events to the report. Nothing is trained."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from scripted import ScriptedEngine, epochs, write_sweep

from ftlab.reports.sweep_report import report
from ftlab.studies.engine import Event
from ftlab.sweeps.coordinator import run_sweep
from ftlab.sweeps.sweep import load_sweep
from ftlab.tracking.records import TrialRecord
from ftlab.tracking.tracker import Tracker

UNRENDERED = True
GIVES = "objective/val/accuracy"
SCORES = {0: [0.5, 0.9, 0.4], 1: [0.6, 0.7, 0.8], 2: [0.1, 0.2, 0.3]}


def play(said: dict[str, Any], folder: Path) -> Iterator[Event]:
    """Of the trial's number; a second seed is worse by a tenth."""
    number, seed = int(folder.name.split("-")[2]), said["seed"]
    yield from epochs(folder, [score - 0.1 * seed for score in SCORES[number]])


@pytest.fixture
def here(tmp_path: Path, tiny_bert: Path, reviews: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)

    def run(**keys: Any) -> list[TrialRecord]:
        path = write_sweep(tmp_path, tiny_bert, reviews, {"techniques": {"lora": "LoRA"}},
                           trials=3, **keys)
        run.sweep = load_sweep(path).with_shortcuts(False)  # each in a folder of its own
        run_sweep(run.sweep, engine=ScriptedEngine(play, 1))
        return Tracker().trials("small", run.sweep.name)

    return run


def test_trial__gives_its_best_epoch_and_its_curve_is_the_epochs_alone(here: Any) -> None:
    found = here()
    assert [trial.metrics[GIVES] for trial in found] == [0.9, 0.8, 0.3]
    history = MlflowClient(Tracker().uri).get_metric_history(found[0].run_id, "val/accuracy")
    assert [point.value for point in history] == SCORES[0]
    assert found[0].metrics["val/accuracy"] == 0.4, "MLflow's latest is no use"
    written = report(here.sweep)
    assert written.rows[0].curve[-1].expected == 0.9


def test_trial__a_pruned_one_gives_what_it_had_reached(here: Any) -> None:
    median = {"class_path": "Median", "init_args": {"n_startup_trials": 2}}
    found = here(pruner=median)
    assert [trial.state for trial in found] == ["COMPLETE", "COMPLETE", "PRUNED"]
    assert 0.1 <= found[2].metrics[GIVES] <= 0.2


def test_trial__of_several_seeds_gives_their_mean(here: Any) -> None:
    found = here(seeds=[0, 1])
    assert [trial.metrics[GIVES] for trial in found] == pytest.approx([0.85, 0.75, 0.25])
