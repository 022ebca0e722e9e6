"""Trials that share a process: drawn, led and ended as each by itself. Nothing is trained."""

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState
from scripted import Play, ScriptedEngine, ended, epochs, write_sweep

from ftlab.studies import run_job
from ftlab.studies.dispatch import Interrupted
from ftlab.studies.engine import OUTPUT, Event
from ftlab.sweeps import search_trials, trial_job
from ftlab.sweeps.coordinator import SweepOutcome, run_sweep
from ftlab.sweeps.leases import Lease
from ftlab.sweeps.storage import Storage
from ftlab.sweeps.sweep import load_sweep
from ftlab.sweeps.trial_queue import TrialQueue
from ftlab.tracking.tracker import Tracker

UNRENDERED = True
Sweep = Callable[..., SweepOutcome]
pytestmark = pytest.mark.usefixtures("store")


@pytest.fixture
def sweep(tmp_path: Path, tiny_bert: Path, reviews: Path) -> Sweep:
    """`sweep(play, trials=6)`; with `plain` no two trials share a process."""

    def run(play: Play, slots: int = 1, plain: bool = False, **keys: Any) -> SweepOutcome:
        loaded = load_sweep(write_sweep(tmp_path, tiny_bert, reviews, **keys))
        run.engine = ScriptedEngine(play, slots)
        return run_sweep(loaded.with_shortcuts(not plain), engine=run.engine)

    return run


def good(said: dict[str, Any], folder: Path) -> Iterator[Event]:
    yield from epochs(folder, [0.5, said["technique"]["init_args"]["lr"], 0.4])


def trials(outcome: SweepOutcome) -> list[FrozenTrial]:
    return [trial_job for standing in outcome.standings for trial_job in standing.trials]


def states(outcome: SweepOutcome) -> Counter[str]:
    return Counter(trial_job.state.name for trial_job in trials(outcome))


def recorded() -> Counter[tuple[str, str]]:
    """(state, MLflow's status) of all trials' runs."""
    tracker = Tracker()
    found = tracker._runs.search(tracker._runs.experiment("small"), "tags.`ftlab.kind` = 'trial'")
    return Counter((run.data.tags.get("ftlab.state", ""), run.info.status) for run in found)


def sizes(engine: ScriptedEngine) -> list[int]:
    """Of each process, how many trials it was given."""
    return [len(said.get("members", (said,))) for said in engine.started]


def work() -> list[Path]:
    return list(Path("results/small").glob(".work/*/*"))


# What is drawn

def test_sweep__tells_the_planner_how_many_runs_read_the_same(sweep: Sweep) -> None:
    probes = {f"lr{lr}": {"class_path": "LinearProbe", "init_args": {"lr": lr, "solver": None}} for lr in (0.01, 0.1)}
    sweep(good, study={"techniques": probes}, trials=2, seeds=[0, 1])
    told = [each["runs_to_come"] for said in sweep.engine.started
            for each in said.get("members", (said,))]
    assert told == [2 * 2 * 2] * 8, "cells, trials, seeds"


def test_sweep__finds_what_it_finds_without_packs(sweep: Sweep) -> None:
    packed = sweep(good, 2, trials=6)
    assert sizes(sweep.engine) == [3, 3]
    Path("optuna.journal").unlink()
    plain = sweep(good, plain=True, trials=6)
    assert sizes(sweep.engine) == [1] * 6
    assert [t.params for t in trials(packed)] == [t.params for t in trials(plain)]
    assert [t.values for t in trials(packed)] == [t.values for t in trials(plain)]


@pytest.mark.parametrize(("sampler", "sizes"), [
    ("Random", [4, 4, 4, 2]), ("TPE", [4, 4, 2, *[1] * 4]),
    ({"class_path": "TPE", "init_args": {"n_startup_trials": 3, "multivariate": True}},
     [3, *[1] * 11]),
    ("QMC", [1, 4, 4, 4, 1]), ("NSGAII", [4, 4, 4, 2]),
    ({"class_path": "NSGAII", "init_args": {"population_size": 5}}, [4, 1, *[1] * 9]),
    ({"class_path": "QMC", "init_args": {"independent_sampler": "TPE"}}, [1, 4, 4, 1, *[1] * 4]),
])
def test_values__are_those_of_one_after_another(
    make_sweep: Callable[..., Any], make_board: Callable[..., TrialQueue], tmp_path: Path,
    sampler: Any, sizes: list[int],
) -> None:
    """Every sampler: whatever is drawn at once is what would be drawn of known results."""
    drawn, taken = [], []
    study = make_sweep().study.only(["lora"])
    for room in (4, 1):
        board = make_board(str(tmp_path / str(room)), trials=14, sampler=sampler, study=study)
        while held := board.take_together(lambda cell, room=room: room):
            taken.append(len(held))
            for each in held:
                assert board.complete(each, [each.values["lr"] * 10 - each.values["rank"] / 100])
        (standing,) = board.standing()
        drawn.append([trial_job.params for trial_job in standing.trials])
    assert taken == sizes + [1] * 14
    assert drawn[0] == drawn[1]


def test_grid__visits_every_point_once(
    make_sweep: Callable[..., Any], make_board: Callable[..., TrialQueue], tmp_path: Path
) -> None:
    points = CategoricalDistribution([0.005, 0.01, 0.02, 0.03, 0.04])
    drawn = []
    for room in (3, 1):
        board = make_board(str(tmp_path / str(room)), trials=20, sampler="BruteForce",
                           study=make_sweep().study.only(["probe"]), spaces={"probe": {"lr": points}})
        while held := board.take_together(lambda cell, room=room: room):
            for each in held:
                board.complete(each, [0.5])
        drawn.append([trial_job.params["lr"] for trial_job in board.standing()[0].trials])
    assert drawn[0] == drawn[1]
    assert sorted(drawn[0]) == list(points.choices)


def test_seeds__of_a_trial_follow_each_other(sweep: Sweep) -> None:
    assert states(sweep(good, trials=3, seeds=[0, 1])) == {"COMPLETE": 3}
    assert sizes(sweep.engine) == [1] * 6


# How they end

def test_members__end_as_trials_by_themselves(sweep: Sweep) -> None:
    def play(said: dict[str, Any], folder: Path) -> Iterator[Event]:
        (folder.parent / OUTPUT).write_text("all of it")
        if folder.name == "2":
            yield {"event": "failed", "reason": "RuntimeError: no luck"}
        else:
            yield from good(said, folder)

    outcome = sweep(play, trials=5)
    assert sizes(sweep.engine) == [5]
    assert states(outcome) == {"COMPLETE": 4, "FAIL": 1}
    assert recorded() == {("COMPLETE", "FINISHED"): 4, ("FAIL", "FAILED"): 1}
    assert all(t.values[0] == max(0.5, t.params["lr"]) for t in trials(outcome) if t.values)
    assert trials(outcome)[0].intermediate_values == {1: 0.5, 2: 0.01, 3: 0.4}
    (failure,) = outcome.failures
    output = Path(failure.partition("output: ")[2].rstrip(")"))
    assert "RuntimeError: no luck" in failure
    assert output.read_text() == "all of it"
    assert [path.name for path in output.parent.parent.iterdir() if path.is_dir()] == ["2"]


@pytest.mark.parametrize("end", [
    ended(-signal.SIGSEGV, lost=True), ended(-signal.SIGTERM, reason="no sign of life for 9 s"),
])
def test_crash__costs_the_trial_that_crashes_alone(sweep: Sweep, end: Event) -> None:
    """Trial 3 kills whatever process it is in; whether it is tried again is as without packs."""
    def play(said: dict[str, Any], folder: Path) -> Iterator[Event]:
        member = folder.name.isdigit()
        if (folder.name == "3") if member else ("-3-" in folder.name):
            yield end
        yield from good(said, folder)

    outcome = sweep(play, trials=6)
    attempts = 3 if end["lost"] else 1
    assert sizes(sweep.engine) == [6, *[1] * (5 + attempts)]
    assert states(outcome) == {"COMPLETE": 5, "FAIL": 1}
    assert trials(outcome)[3].state == TrialState.FAIL
    assert recorded() == {("COMPLETE", "FINISHED"): 5, ("FAIL", "FAILED"): 1,
                          ("LOST", "KILLED"): 6 + attempts - 1}
    assert [Lease.of(t).attempts for t in trials(outcome)] == [1, 1, 1, attempts, 1, 1]
    Path("optuna.journal").unlink()
    plain = sweep(play, plain=True, trials=6)
    assert [t.values for t in trials(plain)] == [t.values for t in trials(outcome)]


def test_crash__after_a_member_s_end_leaves_it_its_end(sweep: Sweep) -> None:
    def play(said: dict[str, Any], folder: Path) -> Iterator[Event]:
        yield from good(said, folder)
        if folder.name == "3":
            yield ended(-signal.SIGKILL, lost=True)

    assert states(sweep(play, trials=4)) == {"COMPLETE": 4}
    # the last one's `done` came first, then the crash; all others had ended before
    assert sizes(sweep.engine) == [4]


def test_scarce_memory__is_one_s_own_once_more(sweep: Sweep, capsys: pytest.CaptureFixture) -> None:
    def play(said: dict[str, Any], folder: Path) -> Iterator[Event]:
        if folder.name in ("1", "2"):
            yield {"event": "failed", "reason": "OutOfMemoryError: full", "alone": True}
        else:
            yield from good(said, folder)

    assert states(sweep(play, trials=4)) == {"COMPLETE": 4}
    assert sizes(sweep.engine) == [4, 1, 1]
    assert "2 of 4 runs in one process are run again, each by itself: OutOfMemoryError: full" in (
        " ".join(capsys.readouterr().out.split()))


def test_failure_of_all__is_no_member_s(sweep: Sweep) -> None:
    def play(said: dict[str, Any], folder: Path) -> Iterator[Event]:
        if folder.name.isdigit():
            yield {"event": "failed", "reason": "KeyError: a defect"}
        yield from good(said, folder)

    class OfAll(ScriptedEngine):
        def events(self, patience: float) -> list[tuple[Path, Event]]:
            return [(folder, {k: v for k, v in event.items() if k != "member"})
                    for folder, event in super().events(patience)]

    sweep(good, trials=1)  # the loaded sweep's files
    engine = OfAll(play, 1)
    outcome = run_sweep(load_sweep("sweep.yaml"), engine=engine)
    assert states(outcome)["COMPLETE"] == len(trials(outcome)) == 1
    Path("optuna.journal").unlink()
    write = Path("sweep.yaml").read_text().replace("trials: 1", "trials: 4")
    Path("sweep.yaml").write_text(write)
    outcome = run_sweep(load_sweep("sweep.yaml"), engine=OfAll(play, 1))
    assert states(outcome) == {"COMPLETE": 4}


def test_pruned__members_end_alone(sweep: Sweep) -> None:
    def play(said: dict[str, Any], folder: Path) -> Iterator[Event]:
        bad = folder.name in ("4", "5")
        yield from epochs(folder, [0.1, 0.2, 0.3] if bad else [0.5, 0.6, 0.7])

    threshold = {"class_path": "Threshold", "init_args": {"lower": 0.15}}
    outcome = sweep(play, trials=6, pruner=threshold)
    assert sizes(sweep.engine) == [6]
    assert [t.state.name for t in trials(outcome)] == ["COMPLETE"] * 4 + ["PRUNED"] * 2
    assert [t.values for t in trials(outcome)][4:] == [[0.1], [0.1]]


# Whose they are

def test_interrupted__all_go_back(sweep: Sweep, tmp_path: Path) -> None:
    def play(said: dict[str, Any], folder: Path) -> Iterator[Event]:
        if folder.name == "2":
            signal.raise_signal(signal.SIGINT)
        yield from good(said, folder)

    with pytest.raises(Interrupted):
        sweep(play, trials=5)
    assert recorded() == {("LOST", "KILLED"): 5}
    assert not work()
    outcome = sweep(good, trials=5)
    assert sizes(sweep.engine) == [5], "they share a process again"
    assert states(outcome) == {"COMPLETE": 5}
    assert all(Lease.of(t).attempts == 1 for t in trials(outcome))


def test_interrupted__while_they_are_run_again_gives_all_back(sweep: Sweep) -> None:
    def play(said: dict[str, Any], folder: Path) -> Iterator[Event]:
        if folder.name == "0":
            yield ended(-signal.SIGKILL, lost=True)
        if not folder.name.isdigit():
            signal.raise_signal(signal.SIGTERM)
        yield {"event": "alive"}

    with pytest.raises(Interrupted):
        sweep(play, trials=4)
    backend = Storage("optuna.journal").backend
    (search,) = backend.get_all_studies()
    assert {Lease.of(t).owner for t in backend.get_all_trials(search._study_id)} == {None}
    assert not work()
    assert states(sweep(good, trials=4)) == {"COMPLETE": 4}


def test_killed_coordinator__s_trials_share_a_process_again(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def play(said: dict[str, Any], folder: Path) -> Iterator[Event]:
        if folder.name == "2":
            raise Killed
        yield from good(said, folder)

    def later(self: object, why: str) -> None:
        pass  # a killed process tells nobody

    with monkeypatch.context() as patch:
        patch.setattr(trial_job.Trial, "interrupted", later)
        patch.setattr(search_trials.SearchTrials, "interrupted", later)
        patch.setattr("shutil.rmtree", lambda *arguments, **named: None)
        with pytest.raises(Killed):
            sweep(play, trials=4)
    assert work(), "what it left"
    monkeypatch.setattr("ftlab.sweeps.liveness.LivenessWatch.gone", lambda *arguments: True)
    outcome = sweep(good, trials=4)
    assert sizes(sweep.engine) == [4]
    assert states(outcome) == {"COMPLETE": 4}
    assert {(Lease.of(t).token, Lease.of(t).attempts) for t in trials(outcome)} == {(2, 1)}
    assert recorded() == {("COMPLETE", "FINISHED"): 4, ("LOST", "KILLED"): 4}
    assert not work()


def test_error_of_ours__while_a_member_begins_gives_all_back(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, count = run_job.write_specification, Counter[str]()

    def full(*arguments: Any) -> None:
        count["all"] += 1
        if count["all"] == 3:
            raise OSError(28, "No space left on device")
        write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(run_job, "write_specification", full)
        with pytest.raises(OSError, match="No space left"):
            sweep(good, trials=4)
    assert states(sweep(good, trials=4)) == {"COMPLETE": 4}
    assert sizes(sweep.engine) == [4]


def test_board__lost_attempts_share_no_process(make_board: Callable[..., TrialQueue], tmp_path: Path) -> None:
    board = make_board(str(tmp_path / "journal"), trials=5)
    taken = board.take_together(lambda cell: 3)
    assert [held.number for held in taken] == [0, 1, 2]
    assert len({held.cell.key for held in taken}) == 1
    board.release(taken[1], attempted=True)
    board.release(taken[0])
    board.release(taken[2])
    assert [held.number for held in board.take_together(lambda cell: 3)] == [0, 2]
    assert [held.number for held in board.take_together(lambda cell: 3)] == [1]
    assert [held.number for held in board.take_together(lambda cell: 9)] == [0, 1, 2, 3, 4]
    assert [held.number for held in board.take_together(lambda cell: 9)] == [3, 4]
    assert board.take_together(lambda cell: 9) == []
