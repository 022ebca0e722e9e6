"""A node of a Ray cluster, without Ray: what comes in, what goes back, what is left."""

import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from ftlab.studies import ray_runner
from ftlab.studies.engine import EVENTS, OUTPUT, SPECIFICATION, STOP, Event
from ftlab.studies.ray_runner import Runner
from ftlab.training import state_files

EXIT = {"event": "exit", "code": 0, "lost": False}
HERE = {"event": "environment", "said": {"device": "a node"}}


class Script:
    """In place of `LocalEngine`: a run that says and writes what a test wants."""

    says: list[list[Event]] = []
    files: dict[str, bytes] = {}
    closed = 0

    def __init__(self, shares: Any, timeout: float | None) -> None:
        self.left = [list(each) for each in self.says]

    def start(self, directory: Path) -> None:
        self.directory = directory
        for name, data in self.files.items():
            (directory / name).parent.mkdir(exist_ok=True)
            (directory / name).write_bytes(data)

    def events(self, patience: float) -> list[tuple[Path, Event]]:
        return [(self.directory, event) for event in self.left.pop(0)]

    def prune(self, directory: Path) -> None:
        (directory / STOP).touch()

    def close(self) -> None:
        Script.closed += 1


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files; runs are scripted, and the current folder is put back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(ray_runner, "LocalEngine", Script)
    asked = [sys.executable, "-c", """print('{"device": "a node"}')"""]
    monkeypatch.setattr(ray_runner, "_ask_for_environment", lambda: ask(asked))
    return tmp_path / "temporary"


def ask(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_runner__files_come_back_in_pieces_before_the_exit(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"checkpoint/model.safetensors": bytes(range(250)), EVENTS: b"{}\n", OUTPUT: b""}
    monkeypatch.setattr(Script, "files", files)
    note = {"event": "note", "text": "so far"}
    monkeypatch.setattr(Script, "says", [[note], [note, EXIT]])
    monkeypatch.setattr(ray_runner, "PIECE", 100)
    runner = Runner(str(home), 1, None)
    (where,) = runner.begin("probe-seed0", '{"seed": 0}')
    assert where == {"event": "node", "name": platform.node()}
    runner._asked.wait()
    assert [path.read_text() for path in home.rglob(SPECIFICATION)] == ['{"seed": 0}']
    assert [runner.more(), runner.more()] == [[HERE, note], [note]]
    back: dict[str, bytes] = {}
    while (said := runner.more()) != [EXIT]:
        (piece,) = said
        assert len(piece["data"]) <= 100
        back[piece["name"]] = back.get(piece["name"], b"") + piece["data"]
    assert back == files
    assert not list(home.rglob(SPECIFICATION))  # the folder of the run is gone

    monkeypatch.setattr(Script, "files", {})
    runner._workers.left = [[EXIT]]  # type: ignore[attr-defined]  # the script
    runner.begin("probe-seed1", "{}")  # and the next may come
    assert [runner.more(), runner.more()] == [[HERE], [EXIT]]
    runner.close()


def test_runner__where_a_run_is_keeps_nobody_waiting(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether its node dies, and whether it shall end early, matters from the first moment."""
    waits = [sys.executable, "-c", """input(); print('{"device": "a node"}')"""]
    monkeypatch.setattr(ray_runner, "_ask_for_environment", lambda: subprocess.Popen(
        waits, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    note = {"event": "note", "text": "so far"}
    monkeypatch.setattr(Script, "says", [[note], [note], [note, EXIT]])
    runner = Runner(str(home), 1, None)
    runner.begin("probe-seed0", "{}")
    assert runner.more() == [note]
    assert runner._asked.stdin is not None
    runner._asked.stdin.write("\n")
    runner._asked.stdin.flush()
    runner._asked.wait()
    assert [runner.more(), runner.more()] == [[HERE, note], [note]]
    runner.close()


def test_runner__close_leaves_nothing(home: Path) -> None:
    runner = Runner(str(home), 1, None)
    runner.begin("probe-seed0", "{}")
    runner.prune()
    assert [path.name for path in home.rglob(STOP)]
    before = Script.closed
    runner.close()
    assert Script.closed == before + 1
    assert not list(home.iterdir())
    runner.prune()  # too late, and no matter


def test_runner__removes_what_a_killed_one_left_and_nothing_else(home: Path) -> None:
    living = Runner(str(home), 1, None)
    living.begin("probe-seed0", "{}")
    other = home / "somebody-elses"
    other.mkdir()
    child = os.fork()
    if not child:
        Runner(str(home), 1, None).begin("probe-seed1", "{}")
        (home / "ready").touch()
        time.sleep(60)
    until = time.monotonic() + 30
    while not (home / "ready").exists():
        assert time.monotonic() < until
        time.sleep(0.01)
    assert len(list(home.glob("ftlab-ray-*/probe-*"))) == 2
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    third = Runner(str(home), 1, None)
    assert [path.name for path in home.glob("ftlab-ray-*/probe-*")] == ["probe-seed0"]
    assert other.exists()
    assert len(list(home.glob("ftlab-ray-*"))) == 2
    third.close()
    living.close()


def test_runner__starts_where_the_command_was_given_if_it_can(home: Path) -> None:
    Runner(str(home), 1, None).close()
    assert Path.cwd() == home
    Runner(str(home / "not-on-this-node"), 1, None).close()
    assert Path.cwd() == home


def test_runner__says_why_ftlab_does_not_work_on_its_node(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_runner, "_ask_for_environment", lambda: ask(["/bin/false"]))
    monkeypatch.setattr(Script, "says", [[EXIT]])
    runner = Runner(str(home), 1, None)
    runner.begin("probe-seed0", "{}")
    with pytest.raises(RuntimeError, match=r"ftlab does not work on .*: no reason given"):
        runner.more()
    runner.close()


def test_runner__states_go_back_while_the_run_goes_on(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Should the node vanish, another one goes on from the last that came back."""
    states = [{"number": number, "step": number, "files": {f"{number}-rank0.pt": "x"}, "identity": {}}
              for number in (1, 2)]
    monkeypatch.setattr(Script, "files", {
        "state/1-rank0.pt": b"first", "state/2-rank0.pt": b"second" * 40, "state/2-best/manifest.json": b"{}",
        "state/states.json": json.dumps({"states": states}).encode()})
    alive = {"event": "alive"}
    monkeypatch.setattr(Script, "says", [[alive], [alive], [EXIT]])
    monkeypatch.setattr(ray_runner, "PIECE", 100)
    runner = Runner(str(home), 1, None)
    runner.begin("full-seed0", "{}")
    runner._asked.wait()
    back, here = tmp_path / "back", []
    runner.more()
    while (said := runner.more()) != [alive]:
        here += said
    for event in here:
        path = back / event["name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        if event["event"] == "states":
            state_files.take_manifest(path, event["data"])
        else:
            with path.open("ab") as file:
                file.write(event["data"])
    assert [event["event"] for event in here].count("states") == 2
    assert (back / "state/2-rank0.pt").read_bytes() == b"second" * 40
    assert state_files.numbers(back) == [("state", 1), ("state", 2)]
    while (said := runner.more()) != [EXIT]:  # they came once
        assert not any(event.get("name", "").startswith("state/") for event in said)

    other = Runner(str(home), 1, None)
    for name, piece in state_files.pieces(back, 100):
        other.take("full-seed0", name, piece)
    monkeypatch.setattr(Script, "files", {})
    monkeypatch.setattr(Script, "says", [[EXIT]])
    other.begin("full-seed0", "{}")
    there = next(home.glob("*/full-seed0"))
    assert {path.relative_to(there).as_posix(): path.read_bytes() for path in there.rglob("*")
            if path.is_file() and path.name != SPECIFICATION} == {
        path.relative_to(back).as_posix(): path.read_bytes() for path in back.rglob("*") if path.is_file()}
    for each in (runner, other):
        each._asked.wait()
        each.close()
