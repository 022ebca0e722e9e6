"""Several `ftlab run` of one study: each run is done once, whatever becomes of a command."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from processes import alive, begin, said, wait_for
from scripted import ScriptedEngine

from ftlab.errors import FtlabError
from ftlab.studies.engine import Event
from ftlab.studies.run_queue import run_name
from ftlab.studies.study import Study, load_study
from ftlab.sweeps.storage import Storage
from ftlab.sweeps.study_runs import RunQueue, run_study
from ftlab.tracking.tracker import Tracker

UNRENDERED = True
LEASE = 60.0


@pytest.fixture
def study(tmp_path: Path, tiny_bert: Path, reviews: Path) -> Study:
    """Two cells of three seeds, whose runs share no process."""
    return load_study(write(tmp_path, tiny_bert, reviews)).with_shortcuts(False)


def write(folder: Path, backbone: Path, data: Path, **keys: Any) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({
        "name": "small",
        "backbones": {"bert": {"class_path": "HuggingFace",
                               "init_args": {"source": str(backbone), "pooling": "mean"}}},
        "datasets": {"reviews": {"class_path": "TextClassification", "init_args": {
            "train": str(data), "max_length": 32, "batch_size": 8}}},
        "techniques": {"one": {"class_path": "LinearProbe", "init_args": {"lr": 0.01, "solver": None}},
                       "two": {"class_path": "LinearProbe", "init_args": {"lr": 0.02, "solver": None}}},
        "seeds": [0, 1, 2], "trainer": {"max_epochs": 2}, **keys}, sort_keys=False))
    return path


@pytest.fixture
def queue(study: Study, tmp_path: Path) -> Iterator[Callable[..., RunQueue]]:
    """Makes the queue of another command; without an address the one beside the results."""
    made = []

    def make(lease: float = LEASE, address: str = "") -> RunQueue:
        folder = tmp_path / "results" / ".queue"
        folder.mkdir(parents=True, exist_ok=True)
        made.append(RunQueue("small", Storage(address or str(folder / "small.journal")), lease))
        made[-1].look(names(study))
        return made[-1]

    yield make
    for each in made:
        each.close()


def names(study: Study) -> list[str]:
    return [run_name(cell, seed) for cell in study.cells for seed in study.seeds]


def by_itself(free: list[str]) -> list[str]:
    return free[:1]


def play(specification: dict[str, Any], folder: Path) -> Iterator[Event]:
    until = time.monotonic() + 0.2
    while time.monotonic() < until:
        yield {"event": "progress", "phase": "fit", "done": 1, "total": 2}
        time.sleep(0.02)
    yield {"event": "done", "metrics": {"val/accuracy": 0.5, "test/accuracy": 0.5}}


def statuses(folder: Path) -> Counter[str]:
    client = Tracker(f"sqlite:///{folder}/mlflow.db")._client
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    return Counter(run.info.status for run in client.search_runs(
        [experiment.experiment_id], "tags.`ftlab.kind` = 'run'"))


def do(study: Study, folder: Path, engine: ScriptedEngine, **more: Any) -> Any:
    return run_study(study, f"sqlite:///{folder}/mlflow.db", folder / "results", engine=engine, **more)


def test_two_commands__on_an_empty_store_do_each_run_once(
    study: Study, address: str, tmp_path: Path
) -> None:
    engines = [ScriptedEngine(play, 1) for _ in "ab"]
    outcomes: dict[int, Any] = {}

    def command(number: int) -> None:
        outcomes[number] = do(study, tmp_path, engines[number], storage=address)

    threads = [threading.Thread(target=command, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    done = Counter((said["technique"]["init_args"]["lr"], said["seed"])
                   for engine in engines for said in engine.started)
    assert done == {(lr, seed): 1 for lr in (0.01, 0.02) for seed in (0, 1, 2)}
    assert all(engine.started for engine in engines), "one did all"
    assert statuses(tmp_path) == {"FINISHED": 6}
    assert {outcome.finished for outcome in outcomes.values()} == {6}
    assert not (tmp_path / "results/small/.work").exists()
    cells = Tracker(f"sqlite:///{tmp_path}/mlflow.db").cells("small")
    assert [cell.metrics["test/accuracy.n"] for cell in cells] == [3, 3]


def test_held_runs__are_refused_with_who_holds_them(
    study: Study, queue: Callable[..., RunQueue], tmp_path: Path
) -> None:
    other = queue()
    for _ in names(study):
        other.claim(names(study), by_itself)
    engine = ScriptedEngine(play)
    with pytest.raises(FtlabError, match=rf"6 runs left, held by process {os.getpid()} on this"):
        do(study, tmp_path, engine)
    assert not engine.started
    cells = Tracker(f"sqlite:///{tmp_path}/mlflow.db")._client.search_runs(["1"])
    assert {run.info.status for run in cells} == {"RUNNING"}, "another works at the cells"


def test_held_runs__of_a_dead_command_are_taken_over(
    study: Study, queue: Callable[..., RunQueue], tmp_path: Path
) -> None:
    dead = queue()
    dead.claim(names(study), by_itself)
    dead._leases.owner.process = f"{os.getpid()} 1"  # a number that another process has now
    dead._leases.beat(now=True)
    left = tmp_path / f"results/small/.work/one-{study.cells[0].key.config}-1-seed0"
    left.mkdir(parents=True)
    assert do(study, tmp_path, ScriptedEngine(play)).finished == 6
    assert not left.exists()


def test_a_command_of_another_machine__is_watched(
    queue: Callable[..., RunQueue], address: str
) -> None:
    far, near = queue(0.4, address), queue(0.4, address)
    far._leases.owner.machine, far._leases.owner.host = "elsewhere", "node7"
    far._leases.beat(now=True)
    (claim,) = far.claim(["a"], by_itself)
    assert not near.claim(["a"], by_itself)
    wait_for(lambda: near.held()["a"].lives)  # its heart
    holder = near.held()["a"]
    assert holder.title == f"process {os.getpid()} on node7"
    far._closed.set()  # it falls silent
    far._heart.join()
    taken = []
    wait_for(lambda: near.beat() or taken.extend(near.claim(["a"], by_itself)) or taken)
    assert taken[0].token == claim.token + 1 and taken[0].shared
    assert not far.ours(claim) and near.ours(taken[0])
    far.release(claim)  # too late, and without effect
    assert near.ours(taken[0])


def test_a_late_result__of_a_command_taken_for_dead_is_refused(
    study: Study, queue: Callable[..., RunQueue], tmp_path: Path
) -> None:
    other, store = queue(), f"sqlite:///{tmp_path}/mlflow.db"
    study = study.only(["one"]).with_seeds([0])
    (name,) = names(study)

    def robbed(specification: dict[str, Any], folder: Path) -> Iterator[Event]:
        yield {"event": "progress", "phase": "fit", "done": 1, "total": 2}
        claim = other.exclusively(lambda: other._grant(name, other._trials()[name]))
        other._held[name] = claim
        yield {"event": "done", "metrics": {"val/accuracy": 0.1, "test/accuracy": 0.1}}
        yield {"event": "exit", "code": 0, "lost": False}
        tracker = Tracker(store)
        (cell,) = tracker.cells("small")
        run_id = tracker.open_run(cell.cell_id, 0, {})
        tracker.log_metrics(run_id, {"val/accuracy": 0.9, "test/accuracy": 0.9}, 0, 0)
        tracker.end_run(run_id, "FINISHED")
        tracker.close()
        other.release(claim)

    class Engine(ScriptedEngine):
        def events(self, patience: float) -> list[tuple[Path, Event]]:
            rest = list(self.playing.values())
            news = super().events(patience)
            if any(event["event"] == "exit" for _, event in news):
                threading.Thread(target=lambda: [list(run) for run in rest]).start()
            return news

    engine = Engine(robbed, 1)
    assert do(study, tmp_path, engine).finished == 1
    assert len(engine.started) == 1 and statuses(tmp_path) == {"KILLED": 1, "FINISHED": 1}
    (cell,) = Tracker(store).cells("small")
    assert [run.metrics["test/accuracy"] for run in cell.finished] == [0.9]


def test_a_failure__in_another_command_counts_and_is_not_tried_again(
    study: Study, queue: Callable[..., RunQueue], tmp_path: Path
) -> None:
    other, store = queue(), f"sqlite:///{tmp_path}/mlflow.db"
    first = names(study)[0]
    (claim,) = other.claim([first], by_itself)

    def slowly(specification: dict[str, Any], folder: Path) -> Iterator[Event]:
        if specification["seed"] == 2 and claim.run in other._held:
            tracker = Tracker(store)
            cell = tracker.cells("small")[0]
            run_id = tracker.open_run(cell.cell_id, 0, {})
            tracker.end_run(run_id, "FAILED", "no luck")
            tracker.close()
            other.release(claim)
        yield from play(specification, folder)

    outcome = do(study, tmp_path, ScriptedEngine(slowly, 1))
    assert (outcome.finished, outcome.failed) == (5, 1)
    assert outcome.failures == ["one on reviews from bert, seed 0: no luck (in another command)"]
    assert statuses(tmp_path) == {"FINISHED": 5, "FAILED": 1}
    again = do(study, tmp_path, ScriptedEngine(play, 1))  # a new command tries again
    assert (again.finished, again.failed) == (6, 0)


def test_an_outage_of_the_store__ends_and_nobody_waits_for_the_other(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command has ended a run in it, which the other cannot see before it is sent."""
    flush, ends = Tracker.flush, time.monotonic() + 8
    monkeypatch.setattr(Tracker, "flush", lambda self: flush(self) and time.monotonic() > ends)
    threads = [threading.Thread(target=do, args=(study, tmp_path, ScriptedEngine(play, 1)))
               for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
        assert not thread.is_alive()
    assert statuses(tmp_path) == {"FINISHED": 6}


def test_a_shared_run__is_asked_of_the_store_again_after_an_outage(
    queue: Callable[..., RunQueue]
) -> None:
    other = queue()
    (theirs,) = other.claim(["a"], by_itself)
    ours = queue()
    ours.look(["a"])
    other.release(theirs, done=True)
    for _ in range(2):  # the store did not answer: given back, and claimed again
        (claim,) = ours.claim(["a"], by_itself)
        assert claim.shared
        ours.release(claim)
    (claim,) = ours.claim(["a"], by_itself)
    ours.release(claim, done=True)
    assert not ours.claim(["a"], by_itself)[0].shared


@pytest.mark.slow
@pytest.mark.parametrize(("count", "kill"), [(2, False), (2, True), (4, True)])
def test_processes__share_a_study_and_a_killed_one_s_runs_go_to_the_others(
    tmp_path: Path, tiny_bert: Path, reviews: Path, count: int, kill: bool
) -> None:
    techniques = {name: {"class_path": "faulty.Faulty", "init_args": {"x": 9, "lr": lr}}
                  for name, lr in (("one", 0.01), ("two", 0.02))}
    write(tmp_path, tiny_bert, reviews, techniques=techniques, trainer={"max_epochs": 4})
    command = ("run", "study.yaml", "--allow", "faulty", "--plain")
    all_of_them = [begin(tmp_path, *command, NAP="0.5") for _ in range(count)]
    if kill:
        wait_for(lambda: len(list(tmp_path.glob("results/small/.work/*/events.jsonl"))) == count)
        os.kill(all_of_them[0].pid, signal.SIGKILL)
        all_of_them[0].wait()
    assert [each.wait(600) for each in all_of_them[kill:]] == [0] * (count - kill), said(tmp_path)
    wait_for(lambda: not alive(tmp_path))
    assert statuses(tmp_path) == {"FINISHED": 6} | ({"KILLED": 1} if kill else {})
    rows = (tmp_path / "results/small/runs.csv").read_text().splitlines()[1:]
    assert sorted(tuple(row.split(",")[3:6]) for row in rows) == [
        (technique, str(seed), "FINISHED") for technique in ("one", "two") for seed in range(3)]
    assert not (tmp_path / "results/small/.work").exists()
    assert "Traceback" not in said(tmp_path)
