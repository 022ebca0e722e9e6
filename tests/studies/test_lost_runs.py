"""A run whose machine vanishes is begun again; on an engine that only says so."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ftlab.studies.engine import SPECIFICATION, Engine, Event, Requirements
from ftlab.studies.provenance import TAG
from ftlab.studies.run_job import ATTEMPTS
from ftlab.studies.study import load_study
from ftlab.sweeps.study_runs import run_study
from ftlab.tracking.tracker import Tracker

UNRENDERED = True
LOST = {"event": "exit", "code": -9, "lost": True, "machine_lost": True, "reason": "lost with n1"}
DONE = {"event": "done", "metrics": {"val/accuracy": 0.5, "test/accuracy": 0.5}}


class Losing(Engine):
    """Loses the machines of seed 0 so many times; says where runs are."""

    slots = 1

    def __init__(self, times: int) -> None:
        self.times = times
        self.begun: list[int] = []

    def prepare(self, need: Requirements, workers: int | None, timeout: float | None) -> None:
        self.need = need

    def start(self, directory: Path) -> None:
        self.directory = directory
        self.begun.append(json.loads((directory / SPECIFICATION).read_text())["seed"])

    def events(self, patience: float) -> list[tuple[Path, Event]]:
        where = {"event": "environment", "node": "n1", "said": {"device": "of n1"}}
        said: list[Event] = [where, DONE, {"event": "exit", "code": 0, "lost": False}]
        if self.begun[-1] == 0 and self.times:
            self.times -= 1
            said = [where, {"event": "metrics", "step": 1, "time": 1, "metrics": {"a": 1.0}}, LOST]
        return [(self.directory, event) for event in said]

    def prune(self, directory: Path) -> None:
        raise AssertionError("a study's runs are not pruned")

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("times", [1, ATTEMPTS - 1, ATTEMPTS])
def test_run__whose_machine_vanishes_is_begun_again(
    write: Callable[..., Path], tmp_path: Path, times: int
) -> None:
    study = load_study(write(techniques={"probe": {"class_path": "LinearProbe", "init_args": {"solver": None}}})).with_shortcuts(False)
    store = f"sqlite:///{tmp_path}/mlflow.db"
    engine = Losing(times)
    outcome = run_study(study, store, tmp_path / "results", engine=engine)
    assert engine.closed
    # the others come first, and three attempts are enough
    assert engine.begun == [0, 1] + [0] * min(times, ATTEMPTS - 1)
    assert (outcome.finished, outcome.failed) == ((2, 0) if times < ATTEMPTS else (1, 1))
    assert all("lost with n1" in failure for failure in outcome.failures)

    tracker = Tracker(store)
    runs = tracker._client.search_runs(
        [tracker._client.get_experiment_by_name("small").experiment_id],
        "tags.`ftlab.kind` = 'run'",
    )
    statuses = sorted(run.info.status for run in runs)
    last = "FINISHED" if times < ATTEMPTS else "FAILED"
    assert statuses == sorted(["FINISHED", last, *["KILLED"] * min(times, ATTEMPTS - 1)])
    assert {json.loads(run.data.tags[TAG])["device"] for run in runs} == {"of n1"}
