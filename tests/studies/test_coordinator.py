"""What the store holds of a run, on an engine that follows a script."""

from collections.abc import Callable
from pathlib import Path

from ftlab.studies.engine import Engine, Event, Requirements
from ftlab.studies.plan import plan
from ftlab.studies.study import load_study
from ftlab.sweeps.study_runs import run_study
from ftlab.tracking.tracker import Tracker

TOOK = ("precision", "hardware", "compile")


class Scripted(Engine):
    """Every run's second epoch is worse than its first, which is restored."""

    slots = 1

    def prepare(self, need: Requirements, workers: int | None, timeout: float | None) -> None:
        pass

    def start(self, directory: Path) -> None:
        self.directory = directory

    def events(self, patience: float) -> list[tuple[Path, Event]]:
        epochs = [{"event": "metrics", "step": 10 * epoch, "time": epoch,
                   "metrics": {"val/accuracy": accuracy, "epoch": epoch}}
                  for epoch, accuracy in ((1, 0.9), (2, 0.4))]
        done = {"event": "done", "metrics": {"val/accuracy": 0.9, "test/accuracy": 0.8}}
        ended = {"event": "exit", "code": 0, "lost": False}
        took = [{"event": kind, "text": f"the {kind}"} for kind in (*TOOK, "note")]
        return [(self.directory, event) for event in (*took, *epochs, done, ended)]

    def prune(self, directory: Path) -> None:
        raise AssertionError("a study's runs are not pruned")

    def close(self) -> None:
        pass


def test_run__stores_the_restored_epoch_s_validation(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    study = load_study(write(techniques={"probe": {"class_path": "LinearProbe", "init_args": {"solver": None}}})).with_shortcuts(False)
    store = f"sqlite:///{tmp_path}/mlflow.db"
    run_study(study, store, tmp_path / "results", engine=Scripted())
    tracker = Tracker(store)
    cell, = tracker.cells("small")
    assert [run.metrics["val/accuracy"] for run in cell.runs] == [0.9, 0.9]
    history = tracker._client.get_metric_history(cell.runs[0].run_id, "val/accuracy")
    assert [(point.step, point.value) for point in history] == [(10, 0.9), (20, 0.4), (21, 0.9)]
    history = tracker._client.get_metric_history(cell.runs[0].run_id, "test/accuracy")
    assert [point.step for point in history] == [0]  # of a later step MLflow draws a line
    for run in cell.runs:  # what `auto` became
        assert [run.tags[f"ftlab.{kind}"] for kind in TOOK] == [f"the {kind}" for kind in TOOK]


def test_run__stores_what_its_data_took_note_of_beside_its_own_notes(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    path = write(techniques={"probe": {"class_path": "LinearProbe", "init_args": {"solver": None}}})
    table = Path(load_study(path).cells[0].data["init_args"]["train"])
    heading, *lines = table.read_text().splitlines()
    twice = tmp_path / "twice.csv"
    twice.write_text("\n".join([heading, *lines, *lines]) + "\n")
    study = load_study(path, [f"datasets.reviews.init_args.train={twice}"]).with_shortcuts(False)
    noted = [note.partition(": ")[2] for note in plan(study).notes]
    assert any("exact duplicates" in note for note in noted)
    store = f"sqlite:///{tmp_path}/mlflow.db"
    run_study(study, store, tmp_path / "results", engine=Scripted())
    cell, = Tracker(store).cells("small")
    for run in cell.runs:
        assert run.tags["ftlab.note"] == "\n".join([*noted, "the note"])
