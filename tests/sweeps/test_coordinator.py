"""A sweep's coordinator: what it makes of runs that end in every way. Nothing is trained."""

import math
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE
from optuna.trial import FrozenTrial, TrialState
from scripted import Play, ScriptedEngine, ended, epochs, write_sweep

from ftlab.errors import FtlabError, InputError
from ftlab.studies import run_job
from ftlab.studies.dispatch import Interrupted, Job, JobOutcome, Jobs, Signals, dispatch
from ftlab.studies.engine import Event
from ftlab.studies.local_engine import LocalEngine
from ftlab.sweeps import coordinator, search_trials, trial_job
from ftlab.sweeps.coordinator import SweepOutcome, run_sweep
from ftlab.sweeps.leases import Lease
from ftlab.sweeps.storage import Storage
from ftlab.sweeps.sweep import load_sweep
from ftlab.sweeps.trial_queue import TrialQueue
from ftlab.tracking.outbox import Outbox
from ftlab.tracking.tracker import Tracker

UNRENDERED = True
Sweep = Callable[..., SweepOutcome]
pytestmark = pytest.mark.usefixtures("store")
KEYS = {"techniques": {"lora": "LoRA"}}


@pytest.fixture
def sweep(tmp_path: Path, tiny_bert: Path, reviews: Path) -> Sweep:
    """A sweep in a folder of its own: `sweep(play, trials=3)`; again, it is the same command."""

    def run(play: Play, slots: int = 2, study: dict[str, Any] | None = None, **keys: Any) -> SweepOutcome:
        path = write_sweep(tmp_path, tiny_bert, reviews, study, **keys)
        run.engine = ScriptedEngine(play, slots)
        # packs have tests of their own
        return run_sweep(load_sweep(path).with_shortcuts(False), engine=run.engine)

    return run


def good(said: dict[str, Any], folder: Path) -> Iterator[Event]:
    yield from epochs(folder, [0.5, said["technique"]["init_args"]["lr"], 0.4])


def number(folder: Path) -> int:
    """Of the trial whose folder it is."""
    return int(folder.name.split("-")[2])


def trials(outcome: SweepOutcome) -> list[FrozenTrial]:
    return [trial_job for standing in outcome.standings for trial_job in standing.trials]


def states(outcome: SweepOutcome) -> Counter[str]:
    return Counter(trial_job.state.name for trial_job in trials(outcome))


def holders() -> set[str | None]:
    """Who has a lease on a trial that has not ended; None where it was given back."""
    backend = Storage("optuna.journal").backend
    return {Lease.of(each).owner for search in backend.get_all_studies()
            for each in backend.get_all_trials(search._study_id)
            if each.state == TrialState.RUNNING}


def recorded(kind: str = "trial") -> list[tuple[str, str]]:
    """(state, MLflow's status) of all runs of a kind."""
    tracker = Tracker()
    found = tracker._runs.search(tracker._runs.experiment("small"), f"tags.`ftlab.kind` = '{kind}'")
    return sorted((run.data.tags.get("ftlab.state", ""), run.info.status) for run in found)


# Ends

def test_sweep__every_trial_once_and_nothing_left(sweep: Sweep, tmp_path: Path) -> None:
    outcome = sweep(good, trials=6)
    assert states(outcome) == {"COMPLETE": 6}
    assert outcome.over
    assert recorded() == [("COMPLETE", "FINISHED")] * 6
    assert recorded("sweep") == [("", "FINISHED")]
    assert sweep.engine.started[0]["technique"]["init_args"]["lr"] == 0.01, "the study's own setting"
    assert all(trial_job.values[0] == max(0.5, trial_job.params["lr"]) for trial_job in trials(outcome))
    assert not (tmp_path / "results" / "small" / ".work").exists()


def test_sweep__finished_does_nothing_and_more_trials_go_on(sweep: Sweep) -> None:
    first = sweep(good, trials=4)
    again = sweep(good, trials=4)
    assert not sweep.engine.started
    assert [t.params for t in trials(again)] == [t.params for t in trials(first)]
    more = sweep(good, trials=6)
    assert len(sweep.engine.started) == 2
    assert [t.params for t in trials(more)][:4] == [t.params for t in trials(first)]
    assert recorded() == [("COMPLETE", "FINISHED")] * 6


def test_sweep__slots_change_nothing_that_is_drawn(
    sweep: Sweep, tmp_path: Path
) -> None:
    found = []
    for slots in (1, 3):
        found.append({t.number: t.params for t in trials(sweep(good, slots, KEYS, trials=7))})
        (tmp_path / "optuna.journal").unlink()
    assert found[0] == found[1]


def test_sweep__a_tenth_that_fails_fails_alone(sweep: Sweep) -> None:
    def play(said: dict[str, Any], folder: Path) -> Iterator[Event]:
        if number(folder) % 10 == 3:
            yield {"event": "failed", "reason": "RuntimeError: no luck"}
            yield ended(1)
        yield from good(said, folder)

    outcome = sweep(play, trials=20)
    assert states(outcome) == {"COMPLETE": 18, "FAIL": 2}
    assert len(outcome.failures) == 2
    for failure in outcome.failures:
        assert "RuntimeError: no luck (output: " in failure
        assert Path(failure.partition("output: ")[2].rstrip(")")).parent.is_dir()
    assert recorded() == [("COMPLETE", "FINISHED")] * 18 + [("FAIL", "FAILED")] * 2


def test_sweep__a_score_that_is_no_number_fails_its_trial(sweep: Sweep) -> None:
    """In the store too, which said FINISHED of a trial that Optuna calls failed."""
    def play(said: dict[str, Any], folder: Path) -> Iterator[Event]:
        score = {1: math.nan, 2: math.inf}.get(number(folder), 0.5)
        yield {"event": "done", "metrics": {"val/loss": 1.0, "pruned": 0.0} | (
            {} if number(folder) == 3 else {"val/accuracy": score})}

    outcome = sweep(play, trials=5)
    assert states(outcome) == {"COMPLETE": 2, "FAIL": 3}
    assert sorted(t.user_attrs["ftlab.reason"] for t in trials(outcome) if t.values is None) == [
        "the run measured no val/accuracy", "val/accuracy is inf", "val/accuracy is nan"]
    assert recorded() == [("COMPLETE", "FINISHED")] * 2 + [("FAIL", "FAILED")] * 3


def test_sweep__a_vanished_run_is_tried_three_times(sweep: Sweep) -> None:
    begun: Counter[int] = Counter()

    def play(said: dict[str, Any], folder: Path) -> Iterator[Event]:
        begun[number(folder)] += 1
        same = [path for path in folder.parent.iterdir() if number(path) == number(folder)]
        assert same == [folder], "what earlier attempts left is gone"
        if number(folder) == 2 or (number(folder) == 4 and begun[4] < 3):
            yield ended(-signal.SIGKILL, lost=True)
        yield from good(said, folder)

    outcome = sweep(play, trials=6)
    assert begun == {0: 1, 1: 1, 2: 3, 3: 1, 4: 3, 5: 1}
    assert states(outcome) == {"COMPLETE": 5, "FAIL": 1}
    (failure,) = outcome.failures
    assert "killed by SIGKILL, out of memory perhaps, in 3 attempts" in failure
    assert Counter(recorded()) == {
        ("COMPLETE", "FINISHED"): 5, ("FAIL", "FAILED"): 1, ("LOST", "KILLED"): 4}


def test_sweep__an_end_by_time_out_is_no_loss(sweep: Sweep) -> None:
    def play(said: dict[str, Any], folder: Path) -> Iterator[Event]:
        yield ended(-signal.SIGTERM, lost=False, reason="no sign of life for 9 s")

    outcome = sweep(play, trials=1)
    assert [t.user_attrs["ftlab.reason"] for t in trials(outcome)] == ["no sign of life for 9 s"]


def test_sweep__pruned_trials_count_with_their_last_value(sweep: Sweep) -> None:
    def play(said: dict[str, Any], folder: Path) -> Iterator[Event]:
        bad = number(folder) >= 4
        yield from epochs(folder, [0.3, 0.2, 0.1, 0.05] if bad else [0.5, 0.6, 0.7, 0.8])

    median = {"class_path": "Median", "init_args": {"n_startup_trials": 3}}
    outcome = sweep(play, 1, {"trainer": {"max_epochs": 4}}, trials=8, pruner=median)
    assert states(outcome) == {"COMPLETE": 4, "PRUNED": 4}
    for each in trials(outcome)[4:]:
        assert each.values == [0.3]
        assert each.intermediate_values == {1: 0.3}
    assert recorded() == [("COMPLETE", "FINISHED")] * 4 + [("PRUNED", "KILLED")] * 4


# Seeds

def test_seeds__a_trial_is_their_mean(sweep: Sweep) -> None:
    def play(said: dict[str, Any], folder: Path) -> Iterator[Event]:
        yield from epochs(folder, [0.1 * (1 + said["seed"])])

    outcome = sweep(play, trials=3, seeds=[0, 1, 5])
    assert [round(t.values[0], 6) for t in trials(outcome)] == [0.3, 0.3, 0.3]
    assert sorted(trials(outcome)[0].intermediate_values) == [1, 4, 7]


def test_seeds__an_interruption_between_two_gives_the_trial_back(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At that moment the trial is with no slot, and was forgotten: leased, and RUNNING in MLflow."""
    ends, before = [], trial_job.Trial.end

    def end(self: trial_job.Trial, event: Event) -> Iterator[tuple[Job, JobOutcome]]:
        yield from before(self, event)
        ends.append(event)
        if len(ends) == 3:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(trial_job.Trial, "end", end)
    with pytest.raises(Interrupted):
        sweep(good, 2, trials=4, seeds=[0, 1])
    assert {status for _, status in recorded()} <= {"KILLED", "FINISHED"}
    assert holders() == {None}
    assert states(sweep(good, 2, trials=4, seeds=[0, 1])) == {"COMPLETE": 4}


# Interruptions and errors of our own

def test_interrupted__trials_go_back_and_the_store_is_true(sweep: Sweep, tmp_path: Path) -> None:
    def play(said: dict[str, Any], folder: Path) -> Iterator[Event]:
        if number(folder) == 3:
            signal.raise_signal(signal.SIGINT)
        yield from good(said, folder)

    with pytest.raises(Interrupted) as caught:
        sweep(play, trials=6)
    assert caught.value.name == "SIGINT"
    assert sweep.engine.closed
    counts = Counter(recorded())
    assert counts[("LOST", "KILLED")] in (1, 2)
    assert not any(status == "RUNNING" for _, status in counts)
    assert recorded("sweep") == [("", "KILLED")]
    assert not (tmp_path / "results" / "small" / ".work").exists()
    outcome = sweep(good, trials=6)
    assert states(outcome) == {"COMPLETE": 6}
    assert all(t.user_attrs["ftlab.lease"]["attempts"] == 1 for t in trials(outcome))


def test_error_of_ours__stops_the_engine_and_gives_trials_back(sweep: Sweep) -> None:
    """As an interruption does; a trial left leased would wait for our end to be noticed."""
    def play(said: dict[str, Any], folder: Path) -> Iterator[Event]:
        if number(folder) == 1:
            raise ZeroDivisionError("a defect")
        while True:
            yield {"event": "alive"}

    with pytest.raises(ZeroDivisionError):
        sweep(play, trials=3)
    assert sweep.engine.closed
    assert holders() == {None}
    assert recorded() == [("LOST", "KILLED")] * 2


def test_error_of_ours__while_a_trial_begins_gives_it_back(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(run_job, "write_specification", full)
        with pytest.raises(OSError, match="No space left"):
            sweep(good, trials=3)
    assert holders() == {None}
    assert states(sweep(good, trials=3)) == {"COMPLETE": 3}


def test_closing__its_own_failure_hides_no_interruption(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever sent SIGTERM is answered with 143, whether the store takes the last words or not."""
    def lost(self: Outbox) -> None:
        raise FtlabError("the tracking store did not take 3 writes", "mend it")

    def play(said: dict[str, Any], folder: Path) -> Iterator[Event]:
        signal.raise_signal(signal.SIGTERM)
        yield from good(said, folder)

    with monkeypatch.context() as patch:
        patch.setattr(Outbox, "drain", lost)
        with pytest.raises(Interrupted):
            sweep(play, trials=2)
        assert "did not take 3 writes" in capsys.readouterr().out
        with pytest.raises(FtlabError, match="did not take"):
            sweep(good, trials=2)


def test_records__are_made_good_after_a_kill_between_two_stores(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial is told to Optuna first; MLflow said RUNNING for ever, or knew nothing of it."""
    class Killed(BaseException):
        pass

    def kill(self: Tracker, *arguments: Any) -> None:
        raise Killed

    def later(self: object, why: str) -> None:
        pass  # a killed process tells nobody

    with monkeypatch.context() as patch:
        patch.setattr(Tracker, "end_run", kill)
        patch.setattr(trial_job.Trial, "interrupted", later)
        patch.setattr(search_trials.SearchTrials, "interrupted", later)
        with pytest.raises(Killed):
            sweep(good, 1, trials=2)
    assert ("", "RUNNING") in recorded()
    monkeypatch.setattr(TrialQueue, "over", lambda self: True)  # nothing but the catching up
    monkeypatch.setattr(TrialQueue, "take_together", lambda self, room, more: [])
    sweep(good, 1, trials=2)
    assert recorded() == [("COMPLETE", "FINISHED")]
    tracker = Tracker()
    (record,) = tracker.trials("small", "sweep")
    tracker._client.delete_run(record.run_id)
    sweep(good, 1, trials=2)
    assert recorded() == [("COMPLETE", "FINISHED")]
    assert tracker.trials("small", "sweep")[0].run_id != record.run_id


def test_second_signal__waits_for_no_process(sweep: Sweep) -> None:
    class Slow(ScriptedEngine):
        def close(self) -> None:
            if not self.closed:
                self.closed = True
                signal.raise_signal(signal.SIGINT)
                raise AssertionError("it goes on waiting")

    def play(said: dict[str, Any], folder: Path) -> Iterator[Event]:
        signal.raise_signal(signal.SIGTERM)
        yield {"event": "alive"}

    class Here(Jobs):
        def __init__(self) -> None:
            self.waiting: list[Job] = [one]

        def next(self) -> Job | None:
            return self.waiting.pop() if self.waiting else None

        def ended(self, run: Job, outcome: JobOutcome) -> None:
            pass

        def over(self) -> bool:
            return not self.waiting

        def tick(self) -> None:
            pass

    class One(Job):
        directory, heard = Path("run"), ""

        def event(self, event: Event) -> None:
            pass

        def end(self, event: Event) -> Iterator[tuple[Job, JobOutcome]]:
            yield self, JobOutcome("done")

        def interrupted(self, why: str) -> None:
            self.heard = why

    one, engine, signals = One(), Slow(play), Signals()
    engine.start = lambda directory: engine.playing.update({directory: play({}, directory)})  # type: ignore[method-assign]  # no specification
    signals.deferred = True
    try:
        with pytest.raises(Interrupted) as caught:
            dispatch(engine, Here(), signals)
    finally:
        signals.restore()
    assert caught.value.name == "SIGINT"
    assert one.heard == "interrupted by SIGTERM"


def test_second_signal__kills_the_server_of_this_machine_s_engine(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its runs die with it; otherwise they have five seconds, and it has ten."""
    def deaf(self: LocalEngine, start: object) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["sleep", "3600"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    monkeypatch.setattr(LocalEngine, "_serve", deaf)
    engine, signals = LocalEngine(), Signals()
    server, engine._running = engine._server, {Path("run"): None}  # type: ignore[dict-item]  # it is only counted
    threading.Timer(0.3, signal.pthread_kill, (threading.get_ident(), signal.SIGINT)).start()
    try:
        with pytest.raises(Interrupted):
            engine.close()
    finally:
        signals.restore()
    assert server.poll() == -signal.SIGKILL
    assert server.stdout is not None
    server.stdout.close()


def test_first_signal__waits_no_longer_than_others_wait_for_us(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that does not answer would keep SIGTERM waiting until SIGKILL."""
    monkeypatch.setattr("ftlab.studies.dispatch.LATEST", 0.2)
    before = signal.getsignal(signal.SIGALRM)
    signals = Signals()
    signals.deferred = True
    try:
        with pytest.raises(Interrupted) as caught:
            signal.raise_signal(signal.SIGTERM)
            time.sleep(30)
    finally:
        signals.restore()
    assert caught.value.name == "SIGTERM"
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_signal__raised_where_python_drops_it_is_remembered() -> None:
    class Destructor:
        def __del__(self) -> None:
            with pytest.raises(Interrupted):
                signal.raise_signal(signal.SIGTERM)

    signals = Signals()
    try:
        Destructor()
        with pytest.raises(Interrupted):
            signals.check()
    finally:
        signals.restore()


def test_tracking_store__that_is_down_for_a_while_loses_nothing(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # MLflow's own import of it warns, and is over by now
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    down = False
    for name in ("log_batch", "create_run", "update_run_info", "log_inputs"):
        method = getattr(SqlAlchemyStore, name)

        def broken(*arguments: Any, method: Any = method, **more: Any) -> Any:
            if down:
                raise MlflowException("gone", TEMPORARILY_UNAVAILABLE)
            return method(*arguments, **more)

        monkeypatch.setattr(SqlAlchemyStore, name, broken)

    def play(said: dict[str, Any], folder: Path) -> Iterator[Event]:
        nonlocal down
        down = 1 <= number(folder) < 4
        yield from good(said, folder)

    outcome = sweep(play, 1, trials=6)
    assert states(outcome) == {"COMPLETE": 6}
    assert "does not answer, training goes on" in caplog.text
    assert "answers again; everything kept is stored" in caplog.text
    assert recorded() == [("COMPLETE", "FINISHED")] * 6


# Time, folders, other coordinators

def test_max_seconds__no_trial_starts_after(sweep: Sweep) -> None:
    def play(said: dict[str, Any], folder: Path) -> Iterator[Event]:
        time.sleep(0.3)
        yield from good(said, folder)

    outcome = sweep(play, 1, trials=50, max_seconds=2)
    assert not outcome.over
    assert 0 < states(outcome)["COMPLETE"] < 20
    assert set(states(outcome)) == {"COMPLETE"}, "those that began have ended"
    assert recorded("sweep") == [("", "KILLED")]


def test_two_coordinators__share_the_trials(
    tmp_path: Path, tiny_bert: Path, reviews: Path
) -> None:
    path, done, lock = write_sweep(tmp_path, tiny_bert, reviews, trials=16), [], threading.Lock()

    def play(said: dict[str, Any], folder: Path) -> Iterator[Event]:
        with lock:
            done.append((threading.current_thread().name, number(folder)))
        yield from good(said, folder)

    outcomes: list[SweepOutcome] = []

    def work() -> None:
        outcomes.append(run_sweep(load_sweep(path).with_shortcuts(False), engine=ScriptedEngine(play, 1)))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [states(outcome) for outcome in outcomes] == [{"COMPLETE": 16}] * 2
    assert sorted(which for _, which in done) == list(range(16)), "each once"
    assert len({name for name, _ in done}) == 2
    assert recorded() == [("COMPLETE", "FINISHED")] * 16


def test_results__that_cannot_be_written_to_are_refused_first(
    tmp_path: Path, tiny_bert: Path, reviews: Path
) -> None:
    path = write_sweep(tmp_path, tiny_bert, reviews)
    (tmp_path / "taken").write_text("a file")
    before = set(tmp_path.iterdir())
    with pytest.raises(InputError, match=r"taken is no folder"):
        run_sweep(load_sweep(path), results="taken/here", engine=ScriptedEngine(good))
    assert set(tmp_path.iterdir()) == before


def test_changed_data__is_another_sweep(
    sweep: Sweep, tmp_path: Path, reviews: Path
) -> None:
    own = tmp_path / "own.csv"
    shutil.copy(reviews, own)
    data = {"class_path": "TextClassification", "init_args": {"train": str(own), "max_length": 32}}
    study = {"datasets": {"reviews": data}}
    assert sweep(good, study=study, trials=2).over
    own.write_text(reviews.read_text() + "a very good film,good\n")
    with pytest.raises(InputError, match="another sweep called sweep"):
        sweep(good, study=study, trials=3)
    assert not sweep.engine.started


def test_run__leaves_a_sweep_s_folders_alone(tmp_path: Path) -> None:
    """`ftlab run` beside a sweep of the same study swept away what its trials were writing."""
    from ftlab.studies import continuing
    from ftlab.studies.engine import SPECIFICATION

    for name in ("probe-1-seed0", "sweep/probe-1-0-1-seed0"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / SPECIFICATION).touch()
    continuing.tidy(tmp_path, [])
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["sweep"]
    assert (tmp_path / "sweep/probe-1-0-1-seed0").is_dir()


def test_directions__tasks_must_agree(
    tmp_path: Path, tiny_bert: Path, reviews: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ftlab.tasks.classification import Classification

    loaded = load_sweep(write_sweep(tmp_path, tiny_bert, reviews, objective=[
        "val/accuracy", "val/loss", "cost/train_seconds"]))
    assert coordinator.directions(loaded) == ["maximize", "minimize", "minimize"]
    answers = iter([True, False])
    monkeypatch.setattr(Classification, "higher_is_better", lambda self, metric: next(answers))
    data = {"class_path": "TextClassification", "init_args": {"train": str(reviews)}}
    both = load_sweep(write_sweep(tmp_path, tiny_bert, reviews, {
        "datasets": {"reviews": data, "others": {
            **data, "init_args": {"train": str(reviews), "max_length": 16}}}}))
    with pytest.raises(InputError, match="better in one task"):
        coordinator.directions(both)


def test_state__names_are_optuna_s() -> None:
    assert {TrialState.COMPLETE.name, TrialState.FAIL.name} == trial_job.STATUS.keys()
