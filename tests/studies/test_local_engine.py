"""The engine of one machine: runs of one process that end in every way."""

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ftlab.studies.engine import OUTPUT, SPECIFICATION, Event, MachineShare
from ftlab.studies.fork_server import END, END_HANGING
from ftlab.studies.forked import TO_SAVE
from ftlab.studies.local_engine import LocalEngine
from ftlab.studies.server_process import spawned
from ftlab.studies.study import load_study

UNRENDERED = True
TIMEOUT = 20.0  # longer than a busy machine takes from one sign of life to the next
Specify = Callable[..., Path]


@pytest.fixture
def specify(write: Callable[..., Path], tmp_path: Path) -> Specify:
    """Makes the folder of a run of one process; keyword arguments are the misbehaviour's."""

    def make(name: str = "run", epochs: int = 2, **misbehaviour: object) -> Path:
        study = load_study(write(techniques={"probe": {"class_path": "LinearProbe", "init_args": {"solver": None}}}, select_by="val/loss",
                                 trainer={"max_epochs": epochs, "accelerator": "cpu"}))
        technique = {"class_path": "misbehaving.Misbehaving", "init_args": misbehaviour}
        said = {**study.cells[0].config, "technique": technique, "seed": 0, "search": True}
        folder = tmp_path / name
        folder.mkdir()
        (folder / SPECIFICATION).write_text(json.dumps(said))
        return folder

    return make


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    yield from opened([MachineShare(1)], 600.0)


def opened(shares: list[MachineShare], timeout: float) -> Iterator[LocalEngine]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        made = LocalEngine(shares, timeout)
        yield made  # a second server wants the same environment
    made.close()


def run(engine: LocalEngine, folder: Path) -> list[Event]:
    engine.start(folder)
    return to_the_end(engine, folder)


def to_the_end(engine: LocalEngine, folder: Path) -> list[Event]:
    events: list[Event] = []
    until = time.monotonic() + 300
    while not events or events[-1]["event"] != "exit":
        assert time.monotonic() < until, events
        events += [event for directory, event in engine.events(0.1) if directory == folder]
    return events


def state(pid: int) -> str:
    """The process's state letter; empty where there is none such."""
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


def children(pid: int) -> list[int]:
    return [int(word) for file in Path(f"/proc/{pid}/task").glob("*/children")
            for word in file.read_text().split()]


def reach(engine: LocalEngine, phase: str) -> None:
    """Wait for a run's phase."""
    while not any(event.get("phase") == phase for _, event in engine.events(0.1)):
        pass


def test_run__of_one_process_reports_to_the_end(engine: LocalEngine, specify: Specify) -> None:
    events = run(engine, specify())
    assert events[-2]["event"] == "done"
    assert events[-1] == {"event": "exit", "code": 0, "lost": False}


@pytest.mark.parametrize(("how", "code", "reason"), [
    ("raise", 1, "RuntimeError: on purpose"), ("sys-exit", 1, "SystemExit: 3"),
    ("exit", 7, None), ("kill", -signal.SIGKILL, None),
])
def test_run__that_fails_says_why(
    engine: LocalEngine, specify: Specify, how: str, code: int, reason: str | None
) -> None:
    events = run(engine, specify(how=how))
    assert events[-1] == {"event": "exit", "code": code, "lost": code < 0}
    reasons = [event["reason"] for event in events if event["event"] == "failed"]
    assert reasons == ([reason] if reason else [])


def test_runs__that_fall_silent_are_ended_and_write_where_they_stood(specify: Specify) -> None:
    """Side by side, since each is waited for."""
    # of a process that was stopped, another thread may write while the main one goes on
    where = {"stop": "most recent call first", "hang": "in _now"}
    folders = {specify(how, how=how, when="3"): how for how in where}
    for engine in opened([MachineShare(1)] * 2, TIMEOUT):
        for folder in folders:
            engine.start(folder)
        ends: dict[Path, Event] = {}
        until = time.monotonic() + 300
        while len(ends) < len(folders):
            assert time.monotonic() < until, ends
            ends |= {folder: event for folder, event in engine.events(0.1)
                     if event["event"] == "exit"}
    for folder, how in folders.items():
        silence = re.match(r"no sign of life for (\d+) s", ends[folder]["reason"])
        assert silence and int(silence[1]) >= TIMEOUT, ends[folder]
        assert not ends[folder]["lost"]
        assert where[how] in (folder / OUTPUT).read_text()


def test_sigterm__ends_a_run_as_a_signal(engine: LocalEngine, specify: Specify) -> None:
    folder = specify(epochs=10_000)
    engine.start(folder)
    reach(engine, "fit")
    (pid,) = children(engine._server.pid)
    os.kill(pid, signal.SIGTERM)
    assert to_the_end(engine, folder)[-1] == {"event": "exit", "code": -signal.SIGTERM, "lost": True}


def test_exit__is_heard_at_once(engine: LocalEngine, specify: Specify) -> None:
    folder = specify(how="hang", when="0")
    engine.start(folder)
    reach(engine, "load")
    (pid,) = children(engine._server.pid)
    os.kill(pid, signal.SIGKILL)
    # The server looks at its children only when one has died: else it would never say so.
    assert to_the_end(engine, folder)[-1]["code"] == -signal.SIGKILL


def test_server__that_is_killed_is_replaced_and_its_runs_are_lost(
    engine: LocalEngine, specify: Specify
) -> None:
    folder = specify(how="hang", when="0")
    engine.start(folder)
    reach(engine, "load")
    (pid,) = children(engine._server.pid)
    os.kill(engine._server.pid, signal.SIGKILL)
    assert to_the_end(engine, folder)[-1] == {"event": "exit", "code": -signal.SIGKILL, "lost": True}
    until = time.monotonic() + 60
    while state(pid) not in ("", "Z") and time.monotonic() < until:
        time.sleep(0.05)
    assert state(pid) in ("", "Z"), "a run dies with its server"
    assert run(engine, specify("next"))[-2]["event"] == "done"


def test_close__leaves_no_process(specify: Specify, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a server in an interpreter of its own, as users have it, too."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    engine = LocalEngine([MachineShare(1)], start_server=spawned)
    engine.start(specify(how="hang", when="adapt"))
    events: list[Event] = []
    while not events:
        events += [event for _, event in engine.events(0.1)]
    server = engine._server.pid
    below = children(server)
    begin = time.monotonic()
    engine.close()
    assert time.monotonic() - begin < 60  # the run would hang for an hour
    assert [state(pid) for pid in (server, *below)] == ["", ""]


def test_signals__ask_before_they_end() -> None:
    delays, numbers = zip(*END_HANGING, strict=True)
    assert list(delays) == sorted(delays)
    assert numbers[0] == signal.SIGUSR1
    assert numbers[-2:] == (signal.SIGTERM, signal.SIGKILL)
    assert [number for _, number in END] == [signal.SIGTERM, signal.SIGKILL]
    assert END[-1][0] == TO_SAVE < 30  # of Slurm
