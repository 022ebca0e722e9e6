import json
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from ftlab.tracking import ui_layout
from ftlab.tracking.mlflow_values import objective
from ftlab.tracking.records import CellKey
from ftlab.tracking.tracker import Tracker

Key = Callable[[str], CellKey]
CONFIG = {"technique": {"class_path": "LoRA", "init_args": {"lr": 0.01, "rank": 4}}, "seed": 0}


@pytest.fixture
def tracker(uri: str, study: str) -> Iterator[Tracker]:
    tracker = Tracker(uri)
    tracker.open_study(study, {})
    yield tracker
    tracker.close()


def runs(tracker: Tracker, study: str, wanted: str = "") -> list[Run]:
    client = MlflowClient(tracker.uri)
    experiment = client.get_experiment_by_name(study)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], wanted,
                                   order_by=["attributes.start_time ASC"]))


def one(tracker: Tracker, parent: str, number: int, value: float | None, state: str) -> str:
    run_id = tracker.open_trial(parent, number, 1, {"lr": 0.01 * (number + 1)}, CONFIG)
    for epoch, score in enumerate((0.4, 0.9, 0.6)):
        tracker.log_metrics(run_id, {"val/accuracy": score, "epoch": epoch}, 10 * (epoch + 1), 1)
    tracker.settle(run_id, state, {} if value is None else {"val/accuracy": value})
    tracker.end_run(run_id, "FINISHED" if state == "COMPLETE" else "KILLED")
    return run_id


def test_trials__what_counts_is_the_best_epoch_not_the_latest(
    tracker: Tracker, key: Key, study: str
) -> None:
    parent = tracker.open_sweep(key("lora"), "first")
    one(tracker, parent, 0, 0.9, "COMPLETE")
    one(tracker, parent, 1, 0.4, "PRUNED")
    one(tracker, parent, 2, None, "FAIL")
    found = tracker.trials(study, "first")
    assert [(t.number, t.state) for t in found] == [(0, "COMPLETE"), (1, "PRUNED"), (2, "FAIL")]
    assert found[0].metrics["val/accuracy"] == 0.6, "MLflow's latest is the last epoch's"
    name = objective("val/accuracy")
    assert [t.metrics.get(name) for t in found] == [0.9, 0.4, None]
    assert all(t.key == key("lora") for t in found)


def test_open_trial__searched_values_are_params_of_their_technique(
    tracker: Tracker, key: Key, study: str
) -> None:
    for technique in ("lora", "probe"):
        parent = tracker.open_sweep(key(technique), "first")
        one(tracker, parent, 0, 0.5, "COMPLETE")
    params = {run.data.tags["ftlab.technique"]: run.data.params
              for run in runs(tracker, study, "tags.`ftlab.kind` = 'trial'")}
    assert params["lora"]["lora.lr"] == "0.01" and params["probe"]["probe.lr"] == "0.01"
    assert "probe.lr" not in params["lora"], "or both would be in one chart"
    assert params["lora"]["technique.init_args.rank"] == "4"


def test_trials__the_last_attempt_counts_and_the_earlier_one_is_closed(
    tracker: Tracker, key: Key, study: str
) -> None:
    parent = tracker.open_sweep(key("lora"), "first")
    left = tracker.open_trial(parent, 0, 1, {"lr": 0.1}, CONFIG)
    again = one(tracker, parent, 0, 0.7, "COMPLETE")
    (trial,) = tracker.trials(study, "first")
    assert (trial.run_id, trial.metrics[objective("val/accuracy")]) == (again, 0.7)
    old = MlflowClient(tracker.uri).get_run(left)
    assert (old.info.status, old.data.tags["ftlab.state"]) == ("KILLED", "LOST")


def test_parents__of_one_sweep_and_the_same_when_opened_again(
    tracker: Tracker, key: Key, study: str
) -> None:
    ids = {key(t).digest: tracker.open_sweep(key(t), "first") for t in ("lora", "probe")}
    other = tracker.open_sweep(key("lora"), "second")
    assert tracker.parents(study, "first") == ids
    assert tracker.sweeps(study) == ["first", "second"]
    assert tracker.parents(study, "second") == {key("lora").digest: other}
    assert tracker.open_sweep(key("lora"), "first") == ids[key("lora").digest]
    one(tracker, other, 0, 0.1, "COMPLETE")
    assert tracker.trials(study, "first") == []


def test_set_view__shows_the_study_without_its_trials(
    tracker: Tracker, key: Key, study: str
) -> None:
    cell = tracker.open_cell(key("lora"), CONFIG, [0], 0)
    run_id = tracker.open_run(cell, 0, CONFIG)
    tracker.end_run(run_id, "FINISHED")
    parent = tracker.open_sweep(key("lora"), "first")
    one(tracker, parent, 0, 0.9, "COMPLETE")
    found = {}
    for tag, text in ui_layout.study_tags(study, "test/accuracy").items():
        state = json.loads(text)
        assert all(width >= 90 for width in state["columnWidths"].values())
        assert set(state["columnWidths"]) == set(state["columnOrder"])
        found[tag] = {run.info.run_id for run in runs(tracker, study, state["searchFilter"])}
    assert found == {ui_layout.TAG: {cell, run_id}, ui_layout.RUNS_TAG: {run_id}}


def test_set_sweep_view__the_trials_with_a_chart_a_technique(
    tracker: Tracker, key: Key, study: str
) -> None:
    for sweep in ("first", "second"):
        parent = tracker.open_sweep(key("lora"), sweep)
        one(tracker, parent, 0, 0.9, "COMPLETE")
    searched = {"lora": ["lr", "optim.warmup"], "probe": ["lr"], "untuned": []}
    tracker.set_sweep_view(study, "first", searched, ["val/accuracy", "cost/train_seconds"], True)
    path = tracker.sweep_view_path(study, "first")
    query = parse_qs(path.partition("?")[2])
    client = MlflowClient(tracker.uri)
    experiment = client.get_experiment(path.split("/")[3])
    assert experiment.name == study
    tag = f"mlflow.sharedViewState.{query['viewStateShareKey'][0]}"
    state = json.loads(experiment.tags[tag])
    (trial,) = runs(tracker, study, state["searchFilter"])
    assert trial.data.tags["ftlab.sweep"] == "first"
    # by the time of creation the UI would fold the trials away, and charts would be empty
    assert state["orderByKey"] == "metrics.`objective/val/accuracy`" and not state["orderByAsc"]
    parallel = [c for c in state["compareRunCharts"] if c["type"] == "PARALLEL"]
    told = ["objective/val/accuracy", "objective/cost/train_seconds"]
    assert [(c["selectedParams"], c["selectedMetrics"]) for c in parallel] == [
        (["lora.lr", "lora.optim.warmup"], told), (["probe.lr"], told)]
    lines = [c for c in state["compareRunCharts"] if c["type"] == "LINE"]
    assert [c["metricKey"] for c in lines] == ["val/accuracy"]
    assert query["compareRunsMode"] == ["CHART"]
    assert tracker.view_path(study).endswith("viewStateShareKey=ftlab"), "the study keeps its own"
