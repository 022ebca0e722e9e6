"""Runs on several devices: what one rank does wrong fails that run alone, soon, with its reason."""

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ranks import descendants, nothing_is_left, run

from ftlab.studies.ddp_ranks import _Rank, output_of, to_blame
from ftlab.studies.engine import EVENTS, SPECIFICATION, Event, MachineShare
from ftlab.studies.json_lines import LineReader
from ftlab.studies.local_engine import LocalEngine
from ftlab.studies.study import load_study

UNRENDERED = True
TIMEOUT = 30.0  # of the engine: longer than a busy machine takes from one sign of life to the next
SOON = 120.0  # on a busy machine; a collective would wait for half an hour
Specify = Callable[..., Path]


@pytest.fixture
def specify(write: Callable[..., Path], tmp_path: Path) -> Specify:
    """Makes a run's folder; keyword arguments are the misbehaviour's."""

    def make(name: str = "run", trainer: dict[str, Any] | None = None, search: bool = True,
             **misbehaviour: object) -> Path:
        settings = {"max_epochs": 2, "devices": 2, "accelerator": "cpu", **(trainer or {})}
        study = load_study(write(techniques={"probe": {"class_path": "LinearProbe", "init_args": {"solver": None}}}, trainer=settings,
                                 select_by="val/loss"))
        technique = {"class_path": "misbehaving.Misbehaving", "init_args": misbehaviour}
        said = {**study.cells[0].config, "technique": technique, "seed": 0, "search": search}
        folder = tmp_path / name
        folder.mkdir()
        (folder / SPECIFICATION).write_text(json.dumps(said))
        return folder

    return make


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    """One for all cases: each shows as well that the one before left it in order."""
    yield from opened(2, 600.0)


def opened(runs: int, timeout: float) -> Iterator[LocalEngine]:
    """An engine for so many runs at a time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        made = LocalEngine([MachineShare(2)] * runs, timeout)
    yield made
    made.close()


CASES = [(how, rank, when)
         for how in ("raise", "exit", "leave", "kill") for rank in (0, 1) for when in ("3", "validation")]
CASES += [("sys-exit", 1, "0"), ("raise", 0, "adapt"), ("kill", 1, "adapt")]
SILENT = [("stop", 0, "3"), ("stop", 1, "validation"), ("stop", 1, "adapt"), ("hang", 1, "5")]
REASONS = {
    "raise": "RuntimeError: on purpose", "sys-exit": "SystemExit: 3",
    "exit": "exited with code 7 before the end", "leave": "exited with code 0 before the end",
    "kill": "was killed by SIGKILL",
}


@pytest.mark.parametrize(("how", "rank", "when"), CASES)
def test_rank__that_dies_fails_the_run_soon_with_its_reason(
    engine: LocalEngine, specify: Specify, how: str, rank: int, when: str
) -> None:
    folder = specify(how=how, rank=rank, when=when)
    events = run(engine, folder)[folder]
    failed, exit_ = events[-2:]
    assert failed["event"] == "failed", events
    assert failed["reason"].startswith(f"rank {rank}")
    assert REASONS[how] in failed["reason"]
    assert exit_["code"] == (-signal.SIGKILL if how == "kill" else exit_["code"])
    assert exit_["code"] != 0
    assert exit_["lost"] == (how == "kill")
    assert exit_["seen"] - events[0]["seen"] < SOON
    if how in ("raise", "sys-exit"):
        assert "in _now" in (folder / output_of(rank)).read_text(), "its traceback"
    assert nothing_is_left(engine)


def test_ranks__that_fall_silent_fail_their_runs_within_the_timeout(specify: Specify) -> None:
    """Side by side, since each is waited for."""
    folders = {specify(f"run{number}", how=how, rank=rank, when=when): (how, rank)
               for number, (how, rank, when) in enumerate(SILENT)}
    for engine in opened(len(SILENT), TIMEOUT):
        said = run(engine, *folders)
        assert nothing_is_left(engine)
    for folder, (how, rank) in folders.items():
        exit_ = said[folder][-1]
        assert exit_["code"] != 0
        assert not exit_["lost"]
        silence = re.match(r"no sign of life for (\d+) s", exit_["reason"])
        assert silence and int(silence[1]) >= TIMEOUT, exit_
        if how == "stop":
            assert f"rank {rank} was stopped by a signal" in exit_["reason"]
        assert exit_["seen"] - said[folder][0]["seen"] < TIMEOUT + SOON
        # of a process that was stopped, another thread may write while the main one goes on
        stands = (folder / output_of(rank)).read_text()
        assert ("in _now" if how == "hang" else "most recent call first") in stands, exit_


def test_runs__side_by_side_never_meet(engine: LocalEngine, specify: Specify) -> None:
    folders = [specify("one"), specify("two")]
    for events in run(engine, *folders).values():
        assert [events[-2]["event"], events[-1]["code"]] == ["done", 0], events


@pytest.mark.parametrize(("how", "what"), [("other-rate", "optimizer"), ("other-head", "model")])
def test_ranks__start_alike(engine: LocalEngine, specify: Specify, how: str, what: str) -> None:
    folder = specify(how=how, rank=1)
    events = run(engine, folder)[folder]
    assert f"rank 1 starts from another {what} than rank 0" in events[-2]["reason"]


def test_prune__ends_all_ranks_after_the_same_epoch(engine: LocalEngine, specify: Specify) -> None:
    folder = specify(trainer={"max_epochs": 5})
    engine.prune(folder)
    events = run(engine, folder)[folder]
    assert events[-2]["event"] == "done", events
    assert events[-2]["metrics"]["pruned"] == 1
    assert [(folder / f"epochs.{rank}").read_text() for rank in (0, 1)] == ["1", "1"]
    assert sum("epoch" in event.get("metrics", ()) for event in events) == 1


def test_supervisor__takes_its_ranks_with_it(engine: LocalEngine, specify: Specify) -> None:
    folder = specify(how="hang", rank=1, when="2")
    engine.start(folder)
    seen: list[Event] = []
    while not any(event.get("phase") == "load" for event in seen):
        seen += [event for _, event in engine.events(0.1)]
    (leader,) = (pid for pid in descendants(engine._server.pid) if os.getsid(pid) == pid)
    os.kill(leader, signal.SIGKILL)
    while seen[-1]["event"] != "exit":
        seen += [event for _, event in engine.events(0.1)]
    assert seen[-1] == {"event": "exit", "code": -signal.SIGKILL, "lost": True}
    assert nothing_is_left(engine)


def test_events__are_whole_lines(engine: LocalEngine, specify: Specify) -> None:
    folder = specify(how="raise", rank=1, when="1")
    run(engine, folder)
    lines = (folder / EVENTS).read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines].count("failed") == 1
    assert json.loads(lines[-1])["reason"] == "rank 1: RuntimeError: on purpose"


def rank(number: int, code: int, ended: float, said: dict | None = None, at: float = 0.0) -> _Rank:
    made = _Rank(number, 0, LineReader(-1), 0.0)
    made.code = ended, code
    made.last = (at, said) if said else None
    return made


DONE = {"event": "done"}
OWN = {"event": "failed", "reason": "own", "peer": False}
PEER = {"event": "failed", "reason": "connection closed", "peer": True}


@pytest.mark.parametrize(("ranks", "blamed"), [
    ([rank(0, 0, 1, DONE), rank(1, 0, 1, DONE)], None),
    ([rank(0, 1, 2, PEER, 1.0), rank(1, -9, 3)], 1),  # it complains before the other's end is seen
    ([rank(0, -6, 4), rank(1, 1, 5, OWN, 3.0)], 1),  # aborted by its library, later
    ([rank(0, 1, 5, OWN, 3.0), rank(1, 1, 4, OWN, 3.5)], 0),
    ([rank(0, 1, 5, PEER, 3.0), rank(1, 1, 4, PEER, 2.5)], 1),
    ([rank(0, 0, 1, DONE), rank(1, 0, 1)], 1),
])
def test_to_blame__who_failed_first_by_itself(ranks: list[_Rank], blamed: int | None) -> None:
    blame = to_blame(ranks)
    assert (blame and blame.rank) == blamed
