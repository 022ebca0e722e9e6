"""Clocks of machines that differ by minutes: what counts is not what a clock says."""

from __future__ import annotations

import glob
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from optuna.trial import TrialState
from processes import alive, begin, said, trials, wait_for
from scripted import write_sweep

from ftlab.sweeps.leases import Lease
from ftlab.tracking.records import CellKey
from ftlab.tracking.tracker import Tracker

UNRENDERED = True
KEY = CellKey("s", "b", "d", "t", "c")
AHEAD = 300.0
LIBRARY = next(iter(glob.glob("/usr/lib/*/faketime/libfaketime.so.1")), "")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """`clock(seconds)` sets the clock of this machine ahead."""
    import time

    real = time.time

    def shift(seconds: float) -> None:
        monkeypatch.setattr("time.time", lambda: real() + seconds)

    return shift


def test_cell__shows_what_was_written_last(store_uri: str, clock: Callable[[float], None]) -> None:
    def finish(seed: int, value: float) -> str:
        tracker = Tracker(store_uri)
        tracker.open_study("s", {})
        cell = tracker.open_cell(KEY, {}, [0, 1], 0)
        run = tracker.open_run(cell, seed, {})
        tracker.log_metrics(run, {"test/accuracy": value}, 0, 0)
        tracker.end_run(run, "FINISHED")
        tracker.end_cell(cell)
        tracker.set_metrics(cell, {"rank": seed + 1.0})
        tracker.close()
        return cell

    clock(AHEAD)
    finish(0, 0.5)
    clock(0)  # another machine
    cell = finish(1, 0.7)
    shown = MlflowClient(store_uri).get_run(cell).data.metrics
    assert shown["test/accuracy.mean"] == pytest.approx(0.6)
    assert (shown["test/accuracy.n"], shown["rank"]) == (2, 2)
    tracker = Tracker(store_uri)
    tracker.set_metrics(cell, {"rank": math.nan})
    assert math.isnan(MlflowClient(store_uri).get_run(cell).data.metrics["rank"])


def test_run__that_was_left_by_a_machine_ahead_of_us_is_killed(
    store_uri: str, clock: Callable[[float], None]
) -> None:
    runs = []
    for ahead in (AHEAD, 0):
        clock(ahead)
        tracker = Tracker(store_uri)
        tracker.open_study("s", {})
        runs.append(tracker.open_run(tracker.open_cell(KEY, {}, [0], 0), 0, {}))
    tracker.end_run(runs[1], "FAILED", "no luck")
    assert MlflowClient(store_uri).get_run(runs[0]).info.status == "KILLED"
    (cell,) = tracker.cells("s")
    assert [run.run_id for run in cell.runs] == [runs[1]]


def test_trial__the_attempt_that_ended_it_counts(
    store_uri: str, clock: Callable[[float], None]
) -> None:
    def attempt(ahead: float, number: int, state: str) -> None:
        clock(ahead)
        tracker = Tracker(store_uri)
        tracker.open_study("s", {})
        run = tracker.open_trial(tracker.open_sweep(KEY, "w"), 0, number, {"lr": 0.1}, {})
        tracker.end_run(run, "KILLED" if state == "LOST" else "FINISHED")
        tracker.settle(run, state, {"val/accuracy": 0.5})
        tracker.close()

    attempt(AHEAD, 1, "LOST")
    attempt(0, 1, "COMPLETE")  # its machine was lost, which does not count as an attempt
    (record,) = Tracker(store_uri).trials("s", "w")
    assert record.state == "COMPLETE"


@pytest.mark.slow
@pytest.mark.skipif(not LIBRARY, reason="no libfaketime here: apt install faketime")
@pytest.mark.parametrize("ahead", [("+300s", "+0s"), ("+0s", "+300s"), ("-300s", "+0s")])
def test_two_machines__trials_of_a_killed_one_go_to_the_other_once(
    ahead: tuple[str, str], tmp_path: Path, tiny_bert: Path, reviews: Path
) -> None:
    faulty: dict[str, Any] = {
        "techniques": {"faulty": {"class_path": "faulty.Faulty"}}, "trainer": {"max_epochs": 3}}
    write_sweep(tmp_path, tiny_bert, reviews, faulty, trials=6,
                spaces={"faulty": {"lr": {"low": 1e-3, "high": 1e-1, "log": True}}})
    command = ("sweep", "sweep.yaml", "--allow", "faulty", "--workers", "1")
    one, other = (begin(tmp_path, *command, NAP="0.5", LD_PRELOAD=LIBRARY, FAKETIME=shift)
                  for shift in ahead)

    def both() -> bool:
        running = [each for found in trials(tmp_path).values() for each in found
                   if each.state == TrialState.RUNNING]
        return len({Lease.of(each).owner for each in running} - {None}) == 2

    wait_for(lambda: (tmp_path / "optuna.journal").exists() and both())
    one.kill()
    assert other.wait(900) == 0, said(tmp_path)
    one.wait()
    (done,) = trials(tmp_path).values()
    assert [each.state for each in done] == [TrialState.COMPLETE] * 6
    assert max(Lease.of(each).token for each in done) == 2
    found = Tracker(f"sqlite:///{tmp_path}/mlflow.db")
    (sweep,) = found.sweeps("small")
    assert [trial.state for trial in found.trials("small", sweep)] == ["COMPLETE"] * 6
    wait_for(lambda: not alive(tmp_path), 60)
