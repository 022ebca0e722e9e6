"""Several first starts on one empty store: all work, one experiment, nothing lost."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
from rivals import EPOCHS, TECHNIQUES, at_once, begin_study

from ftlab.tracking.tracker import Tracker

MADE = True  # stores as users have them


def held(uri: str, study: str, count: int) -> None:
    """The store has everything of every process, once."""
    client = Tracker(uri)._client  # which hides what SQLAlchemy says of MLflow
    (experiment,) = client.search_experiments(filter_string=f"name = '{study}'")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    cells = [run for run in runs if run.data.tags["ftlab.kind"] == "cell"]
    assert len(cells) == len(TECHNIQUES)
    assert len(runs) - len(cells) == count * len(TECHNIQUES)
    records = Tracker(uri).cells(study)
    assert [record.key.technique for record in records] == list(TECHNIQUES)
    for record in records:
        assert record.seeds == tuple(range(count))
        assert [run.seed for run in record.finished] == list(range(count))
        for run in record.finished:
            assert len(client.get_metric_history(run.run_id, "val/accuracy")) == EPOCHS
            assert [f.path for f in client.list_artifacts(run.run_id)] == ["run.json"]
            assert len(client.get_run(run.run_id).inputs.dataset_inputs) == 1
        # the last of them has seen all seeds
        mean = statistics.fmean(number / 10 for number in range(count))
        assert record.metrics["test/accuracy.mean"] == pytest.approx(mean)
        assert client.get_run(record.cell_id).info.status == "FINISHED"


def test_first_starts__all_work_and_nothing_is_lost(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    assert not at_once(4, begin_study(uri, "small", tmp_path))
    held(uri, "small", 4)


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(20))
def test_eight_first_starts__twenty_times(tmp_path: Path, attempt: int) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    assert not at_once(8, begin_study(uri, "small", tmp_path))
    held(uri, "small", 8)
