"""What a store may hold that a table must not be wrong about."""

import math

import pytest
from mlflow import MlflowClient
from tracked_study import write

from ftlab.tracking.records import CellKey
from ftlab.tracking.tracker import Tracker

UNRENDERED = True


def test_table__no_finished_run(store, tmp_path):
    keys = [store.add("full", [], ["oom", "oom"]), store.add("lora", [], ["oom"])]
    report = write("study", keys, store, tmp_path, {})
    text = (tmp_path / "study" / "table.md").read_text()
    assert "nothing was tested" in text and "**" not in text and report.sentences == []
    assert "0 seeds" in report.table.caption


def test_table__one_seed_has_no_interval_and_no_test_over_seeds(store, tmp_path):
    keys = [store.add("full", [0.9]), store.add("lora", [0.8])]
    report = write("study", keys, store, tmp_path, {})
    (comparison,) = report.comparisons
    assert not comparison.tested
    assert [row.stands for row in report.rows] == [False, False], "nothing is claimed"
    for name in ("table.md", "table.tex", "table.html"):
        assert "nan" not in (tmp_path / "study" / name).read_text()
    said = (tmp_path / "study" / "table.md").read_text().replace("\\", "")
    assert "| 90.00 ± - (1) | - |" in said and "*Bold:* Nothing: with fewer than three seeds" in said


def test_table__unequal_seeds_are_tested_on_those_in_common(store, tmp_path):
    keys = [store.add("full", [0.90, 0.91, 0.92, 0.93]), store.add("lora", [0.80, 0.81, 0.8])]
    report = write("study", keys, store, tmp_path, {})
    (pair,) = report.comparisons[0].pairs.values()
    assert pair.decides is not None and pair.decides.seeds == 3
    assert "over 3 to 4 seeds" in report.table.caption
    assert [row.summary.n for row in report.rows] == [4, 3]


def test_table__ties_are_said(store, tmp_path):
    keys = [store.add("full", [0.9, 0.8]), store.add("lora", [0.8, 0.9]), store.add("x", [0.1, 0.1])]
    report = write("study", keys, store, tmp_path, {})
    assert [row.rank for row in report.rows] == [1, 1, 3]
    assert dict(report.table.about)["Ties"] == "The same best mean: full and lora on bbc from minilm."


def test_table__two_runs_of_one_seed_count_once(tmp_path):
    """An attempt that failed, and one that was run twice by two processes."""
    tracker = Tracker(f"sqlite:///{tmp_path}/mlflow.db")
    tracker.open_study("s", {})
    key = CellKey("s", "minilm", "bbc", "full", "0")
    cell = tracker.open_cell(key, {}, [0, 1], 0)
    for seed, status, value in ((0, "FAILED", 0.1), (0, "FINISHED", 0.8), (0, "FINISHED", 0.9),
                                (1, "FINISHED", 0.7)):
        run = tracker.open_run(cell, seed, {})
        tracker.log_metrics(run, {"test/accuracy": value}, 1, 1)
        tracker.end_run(run, status)
    tracker.end_cell(cell)
    experiment = MlflowClient(tracker.uri).get_experiment_by_name("s")
    runs = MlflowClient(tracker.uri).search_runs([experiment.experiment_id])
    assert len(runs) == 5, "a cell and four runs"
    report = write("s", [key], tracker, tmp_path, {})
    (row,) = report.rows
    assert (row.summary.n, row.note) == (2, "")
    assert row.summary.mean == pytest.approx((0.9 + 0.7) / 2), "the later of two that finished"
    tracker.close()


def test_table__a_metric_that_one_cell_lacks_is_a_gap(store, tmp_path):
    keys = [store.add("full", [0.9, 0.8]), store.add("lora", [0.5, 0.5], metric="test/loss")]
    report = write("study", keys, store, tmp_path, {})
    assert math.isnan(report.rows[1].summary.mean)
    assert report.rows[1].note == "test/accuracy missing or not finite in seed 0, 1"
    assert report.rows[1].rank is None and not report.rows[1].stands
