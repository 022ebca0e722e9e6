"""MLflow on PostgreSQL: what is read back, and the table, are those of SQLite."""

from dataclasses import replace

import pytest
from postgresql_server import postgresql  # noqa: F401  a fixture
from tracked_study import write

from ftlab.reports.columns import grid, parse
from ftlab.reports.study_files import formatted
from ftlab.reports.study_results import StudyResults
from ftlab.tasks.classification import Classification
from ftlab.tracking.records import CellKey
from ftlab.tracking.tracker import Tracker

SCORES = {"full": [0.95, 0.96, 0.97], "lora": [0.93, 0.95, 0.94], "probe": [0.9, 0.91]}
COSTS = {"cost/trainable_parameters": 1000.0, "cost/total_parameters": 1e6,
         "cost/step_seconds": 0.25, "cost/train_seconds": 12.5}


def log(uri, backwards):
    """Three cells of a study, one run of them failed, begun in either order; keys and tracker."""
    tracker = Tracker(uri)
    tracker.open_study("study", {"question": "which?"})
    keys = [CellKey("study", "minilm", "bbc", name, "c0ffee") for name in SCORES]
    for order, key in sorted(enumerate(keys), reverse=backwards):
        cell = tracker.open_cell(key, {"lr": 0.1, "nested": {"rank": 8}}, [0, 1, 2], order)
        for seed in sorted(range(3), reverse=backwards):
            run = tracker.open_run(cell, seed, {"seed": seed})
            scores = SCORES[key.technique]
            for epoch in range(3):
                tracker.log_metrics(run, {"val/accuracy": epoch / 4}, epoch, 1_000 + epoch)
            tracker.log_metrics(run, {"cost/total_seconds": 20.0}, 3, 2_000)  # not by the clock
            if seed < len(scores):
                tracker.log_metrics(run, {"test/accuracy": scores[seed], **COSTS}, 3, 2_000)
                tracker.end_run(run, "FINISHED")
            else:
                tracker.end_run(run, "FAILED", "non-finite loss")
        tracker.end_cell(cell)
    tracker.close()
    return keys, Tracker(uri)


@pytest.fixture(scope="module")
def both(postgresql, uri, tmp_path_factory):  # noqa: F811
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("here"))  # where MLflow puts a database's artifacts
        yield [log(uri, False), log(postgresql.database(), True)]


def plain(cells):
    """Records without what each store chooses for itself."""
    own = ("mlflow.", "ftlab.id")
    return [replace(cell, cell_id="", runs=[
        replace(run, run_id="", cell_id="", started=0, ended=0, artifacts="",
                tags={k: v for k, v in run.tags.items() if not k.startswith(own)})
        for run in cell.runs]) for cell in cells]


def test_tracker__reads_back_what_sqlite_does(both):
    (_, one), (_, other) = both
    assert plain(one.cells("study")) == plain(other.cells("study"))


def test_table__the_same_bytes_as_from_sqlite(both, tmp_path):
    for (keys, tracker), name in zip(both, "ab", strict=True):
        write("study", keys, tracker, tmp_path / name, {})
    for name in ("table.md", "table.tex", "table.csv", "table.html", "tests.csv"):
        assert (tmp_path / "a" / "study" / name).read_bytes() == (
            tmp_path / "b" / "study" / name).read_bytes()


def test_chosen_columns__the_same_bytes_as_from_sqlite(both):
    def every(keys, tracker):
        records = {record.key: record for record in tracker.cells("study")}
        source = StudyResults("study", "test/accuracy", keys, records, {"bbc": Classification()}, {},
                        tracker)
        made = grid([source], parse("test/accuracy,val/accuracy,cost/train_seconds"))
        return formatted("x", made.table(), *made.numbers())

    (one, other) = (every(*each) for each in both)
    assert one == other and len(one) == 4


def test_tracker__a_second_one_finds_the_cell(both):
    (keys, tracker) = both[1]
    cell = tracker.open_cell(keys[2], {}, [0, 1, 2], 2)
    assert tracker.finished(cell) == {0, 1}
    assert len(tracker.cells("study")) == 3
