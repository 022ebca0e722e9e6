"""A sweep's report from a real tracking store, without training."""

import json
from dataclasses import replace

import pytest
import yaml
from mlflow import MlflowClient

from ftlab.errors import InputError
from ftlab.reports.sweep_report import report
from ftlab.sweeps.sweep import load_sweep
from ftlab.tracking.tracker import Tracker

SIZE = "cost/trainable_parameters"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "study.yaml").write_text(yaml.safe_dump({
        "name": "small", "question": "Which?",
        "backbones": {"bert": {"class_path": "HuggingFace", "init_args": {"source": "nowhere"}}},
        "datasets": {"reviews": {"class_path": "TextClassification",
                                 "init_args": {"train": "reviews.csv"}}},
        "techniques": {"probe": "LinearProbe", "lora": "LoRA"}, "trainer": {"max_epochs": 2},
    }, sort_keys=False))
    path = folder / "first.yaml"
    path.write_text(f"study: {folder / 'study.yaml'}\ntrials: 2\nobjective: [val/accuracy, {SIZE}]\n")
    return load_sweep(path)


def fill(sweep, uri, trials=2):
    """Every cell's trials: lora gets better, probe stays."""
    tracker = Tracker(uri)
    tracker.open_study(sweep.study.name, {})
    for cell in sweep.study.cells:
        parent = tracker.open_sweep(cell.key, sweep.name)
        for number in range(trials):
            run_id = tracker.open_trial(parent, number, 1, {"lr": 0.01 * (number + 1)}, cell.config)
            score = 0.6 if cell.key.technique == "probe" else 0.5 + 0.3 * number
            tracker.settle(run_id, "COMPLETE", {"val/accuracy": score, SIZE: 10.0 * (number + 1)})
            tracker.end_run(run_id, "FINISHED")
        tracker.end_sweep(parent, "FINISHED", {}, {})
    tracker.close()


def read(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_report__files_artifacts_and_view(sweep, tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    fill(sweep, uri)
    written = report(sweep, uri, tmp_path / "results")
    folder = tmp_path / "results" / "small" / "sweeps" / "first"
    names = {"budget.md", "budget.csv", "budget.png", "front.md", "front.csv", "front.png"}
    assert set(read(folder)) == {path.name for path in written.paths} == names
    # 0.5 and 0.8 against a steady 0.6: the mean of the first trial is 0.65 already
    (sentence,) = written.sentences
    assert sentence.endswith("is the same after any number of trials from 1 to 2: lora > probe.")
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("small")
    for parent in Tracker(uri).parents("small", "first").values():
        found = {file.path.removeprefix("sweep/") for file in client.list_artifacts(parent, "sweep")}
        assert found == names
    state = json.loads(experiment.tags["mlflow.sharedViewState.ftlab-first"])
    assert [c["selectedParams"] for c in state["compareRunCharts"][:2]] == [
        [f"{cell.key.technique}.{name}" for name in sweep.spaces[cell.key.technique]]
        for cell in sweep.study.cells]
    assert "viewStateShareKey=ftlab-first" in written.view
    before = read(folder)
    report(sweep, uri, tmp_path / "results")
    assert read(folder) == before, "the same store gives the same bytes"

    alone = replace(sweep, objectives=("val/accuracy",))
    report(alone, uri, tmp_path / "results")
    assert set(read(folder)) == {"budget.md", "budget.csv", "budget.png"}


def test_report__of_a_study_never_tracked(sweep, tmp_path):
    with pytest.raises(InputError, match="nothing is tracked"):
        report(sweep, f"sqlite:///{tmp_path}/mlflow.db", tmp_path)
