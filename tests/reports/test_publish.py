import math

import pytest
from mlflow import MlflowClient

from ftlab.reports.publish import publish
from ftlab.reports.table import write
from ftlab.tracking.records import CellKey
from ftlab.tracking.tracker import Tracker


@pytest.fixture
def tracker(tmp_path):
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
    assert math.isnan(cells[2].data.metrics["rank"])
    assert [c.info.status for c in cells] == ["FINISHED", "FINISHED", "FAILED"]
    assert "85.00" in cells[1].data.tags["ftlab.table_row"]
    names = [f.path for f in client.list_artifacts(made[1][1])]
    assert names == ["figures", "table_row.md"]
    figures = client.list_artifacts(made[1][1], "figures")
    assert [f.path for f in figures] == ["figures/test_accuracy.png"]
    before = {p: p.read_bytes() for p in report.paths}
    write("s", keys, Tracker(tracker.uri), tmp_path / "results", {})
    assert before == {p: p.read_bytes() for p in report.paths}


def test_publish__ranks_the_lowest_first_where_less_is_better(tracker, tmp_path):
    made = [fill(tracker, "full", [0.3, 0.2], 0, "test/wer"),
            fill(tracker, "lora", [0.1, 0.2], 1, "test/wer")]
    keys = [key for key, _ in made]
    publish(write("s", keys, tracker, tmp_path, {}, "test/wer", higher_is_better=False), tracker)
    cells = [MlflowClient(tracker.uri).get_run(cell).data for _, cell in made]
    assert [cell.tags["ftlab.rank"] for cell in cells] == ["2", "1"]
    assert [cell.metrics["rank"] for cell in cells] == [2.0, 1.0]
    assert "**15.00" in cells[1].tags["mlflow.note.content"]
