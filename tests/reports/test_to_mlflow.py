import math
import shutil

import pytest
from mlflow import MlflowClient
from tracked_study import write

from ftlab.reports.to_mlflow import publish
from ftlab.tracking.palette import COLOURS
from ftlab.tracking.records import CellKey
from ftlab.tracking.tracker import Tracker


@pytest.fixture
def tracker(tmp_path, empty_store):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    tracker = Tracker(f"sqlite:///{tmp_path}/mlflow.db")
    tracker.open_study("s", {})
    yield tracker
    tracker.close()


def fill(tracker, technique, values, order, metric="test/accuracy"):
    key = CellKey("s", "minilm", "bbc", technique, "0")
    cell = tracker.open_cell(key, {}, [0, 1], order)
    for seed, value in enumerate(values):
        run_id = tracker.open_run(cell, seed, {})
        costs = {"cost/trainable_parameters": 10.0 + order, "cost/total_parameters": 100.0}
        tracker.log_metrics(run_id, {metric: value, **costs}, 1, 1)
        tracker.end_run(run_id, "FINISHED")
    tracker.end_cell(cell)
    return key, cell


def test_publish__what_the_table_says_is_on_the_cells(tracker, tmp_path):
    made = [
        fill(tracker, "full", [0.7, 0.8], 0),
        fill(tracker, "lora", [0.8, 0.9], 1),
        fill(tracker, "probe", [0.99], 2),
    ]
    keys = [key for key, _ in made]
    report = write("s", keys, tracker, tmp_path / "results", {})
    publish(report, tracker)
    client = MlflowClient(tracker.uri)
    cells = [client.get_run(cell) for _, cell in made]
    assert [c.data.tags["ftlab.rank"] for c in cells] == ["2", "1", "-"]
    assert [c.data.metrics["rank"] for c in cells[:2]] == [2.0, 1.0]
    assert "rank" not in cells[2].data.metrics
    assert [c.info.status for c in cells] == ["FINISHED", "FINISHED", "FAILED"]
    assert "85.00" in cells[1].data.tags["ftlab.table_row"]
    names = [f.path for f in client.list_artifacts(made[1][1])]
    assert names == ["figures", "table_row.md"]
    figures = client.list_artifacts(made[1][1], "figures")
    assert [f.path for f in figures] == ["figures/scores.png"]
    before = {p: p.read_bytes() for p in report.paths}
    write("s", keys, Tracker(tracker.uri), tmp_path / "results", {})
    assert before == {p: p.read_bytes() for p in report.paths}


def test_publish__ranks_the_lowest_first_where_less_is_better(tracker, tmp_path):
    made = [fill(tracker, "full", [0.3, 0.2, 0.25], 0, "test/wer"),
            fill(tracker, "lora", [0.1, 0.2, 0.15], 1, "test/wer")]
    keys = [key for key, _ in made]
    publish(write("s", keys, tracker, tmp_path, {}, "test/wer", higher_is_better=False), tracker)
    cells = [MlflowClient(tracker.uri).get_run(cell).data for _, cell in made]
    assert [cell.tags["ftlab.rank"] for cell in cells] == ["2", "1"]
    assert [cell.metrics["rank"] for cell in cells] == [2.0, 1.0]
    assert "**15.00" in cells[1].tags["mlflow.note.content"]


def test_publish__a_rank_that_is_lost_becomes_nan(tracker, tmp_path):
    key, cell = fill(tracker, "full", [0.7, 0.8], 0)
    publish(write("s", [key], tracker, tmp_path, {}), tracker)
    client = MlflowClient(tracker.uri)
    assert client.get_run(cell).data.metrics["rank"] == 1.0
    tracker.open_cell(key, {}, [0, 1, 2], 0)
    tracker.end_cell(cell)
    publish(write("s", [key], tracker, tmp_path, {}), tracker)
    assert math.isnan(client.get_run(cell).data.metrics["rank"])


def test_publish__every_run_has_the_colour_of_the_figures(tracker, tmp_path):
    made = [fill(tracker, "full", [0.7, 0.8], 0), fill(tracker, "lora", [0.8, 0.9], 1)]
    publish(write("s", [key for key, _ in made], tracker, tmp_path, {}), tracker)
    client = MlflowClient(tracker.uri)
    for (_, cell), colour in zip(made, COLOURS, strict=False):
        experiment = client.get_run(cell).info.experiment_id
        found = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{cell}'")
        runs = [client.get_run(cell), *found]
        assert [run.data.tags["mlflow.runColor"] for run in runs] == [colour] * 3


def test_publish__descriptions_of_a_large_study_keep_to_what_mlflow_stores(tracker, tmp_path):
    made = []
    for number in range(24):
        name = f"a *long* name | {number:02}{'x' * 120}"
        key = CellKey("s", f"backbone {number // 8}", "bbc", name, "0")
        made.append((key, tracker.open_cell(key, {}, [0], number)))
        run_id = tracker.open_run(made[-1][1], 0, {})
        tracker.log_metrics(run_id, {"test/accuracy": number / 100}, 0, 1)
        tracker.end_run(run_id, "FINISHED")
        tracker.end_cell(made[-1][1])
    report = write("s", [key for key, _ in made], tracker, tmp_path, {})
    publish(report, tracker, "Which *one*?")
    client = MlflowClient(tracker.uri)
    for number, (_, cell) in enumerate(made):
        note = client.get_run(cell).data.tags["mlflow.note.content"]
        assert len(note) <= 5000
        assert "…" not in note
        (marked,) = [line for line in note.splitlines() if line.startswith("| ►")]
        assert rf"a \*long\* name \| {number:02}" in marked
        assert f"**Rank {8 - number % 8} of 8**" in note
    note = client.get_experiment_by_name("s").tags["mlflow.note.content"]
    assert note.startswith("Which \\*one\\*?\n\n")
    assert "1 of 3 tables are not shown here" in note
    assert note.count("\n| a ") == 16
