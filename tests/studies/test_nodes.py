"""One run on two nodes, here two of one machine: it gives what one node gives, and fails as a whole."""

import json
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from processes import alive, begin, said
from ranks import descendants, nothing_is_left, run

from ftlab.errors import FtlabError, InputError
from ftlab.studies.engine import SPECIFICATION, Event, MachineShare, Requirements
from ftlab.studies.following import follow
from ftlab.studies.local_engine import LocalEngine
from ftlab.studies.nodes import Node, check
from ftlab.studies.study import load_study
from ftlab.tracking.cell_hash import cell_hash
from ftlab.training.trainer_settings import TrainerSettings

UNRENDERED = True
SOON = 60.0  # on a busy machine; a collective would wait for half an hour
NAMES = [f"node {number} ({socket.gethostname()})" for number in (0, 1)]
FULL = {"class_path": "FullFineTuning", "init_args": {"lr": 0.01}}


@dataclass
class Pair:
    """Two nodes: the engine of the first, that of the other, and what the other has said."""

    first: LocalEngine
    other: LocalEngine
    said: list[str] = field(default_factory=list)

    def nothing_is_left(self) -> bool:
        return nothing_is_left(self.first) and nothing_is_left(self.other)

    def end_of(self, folder: Path) -> str:
        """What the other node says of a run's end."""
        until = time.monotonic() + SOON
        while time.monotonic() < until:
            for line in self.said:
                if line.startswith(f"{folder.name}: "):
                    return line
            time.sleep(0.05)
        raise AssertionError(self.said)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """One for all cases: each shows as well that the one before left both nodes in order."""
    port = free_port()
    nodes = [Node(number, 2, "127.0.0.1", port) for number in (0, 1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("node1")))
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        made = Pair(*(LocalEngine([MachineShare(1)], 600.0, node=node) for node in nodes))
        failed: list[int] = []
        need = Requirements(accelerator="cpu", nodes=2)
        other = threading.Thread(target=lambda: failed.append(
            follow(nodes[1], made.other, need, made.said.append)))
        with nodes[0].leading():
            other.start()
            yield made
        other.join(10)
        made.first.close()
    assert failed, "the other node has not ended with the first"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


Specify = Callable[..., Path]


@pytest.fixture
def specify(write: Callable[..., Path], tmp_path: Path) -> Specify:
    """Makes the folder of a run that trains all; keyword arguments are a misbehaviour's instead."""

    def make(name: str, trainer: dict[str, Any] | None = None, **how: object) -> Path:
        settings = {"max_epochs": 2, "accelerator": "cpu", **(trainer or {"nodes": 2})}
        study = load_study(write(techniques={"full": FULL}, trainer=settings, select_by="val/loss"))
        wrong = {"class_path": "misbehaving.Misbehaving", "init_args": how}
        folder = tmp_path / name
        folder.mkdir()
        (folder / SPECIFICATION).write_text(json.dumps(
            {**study.cells[0].config, **({"technique": wrong} if how else {}), "seed": 0, "search": True}))
        return folder

    return make


REASONS = {"raise": "RuntimeError: on purpose", "exit": "exited with code 7 before the end",
           "kill": "was killed by SIGKILL"}


@pytest.mark.parametrize(("how", "rank", "when"), [
    ("kill", 1, "3"), ("raise", 1, "validation"), ("exit", 1, "adapt"), ("raise", 0, "3")])
def test_rank__that_dies_on_either_node_fails_the_run_on_both(
    pair: Pair, specify: Specify, how: str, rank: int, when: str
) -> None:
    folder = specify(f"{how}-{rank}", how=how, rank=rank, when=when)
    events = run(pair.first, folder)[folder]
    failed, exit_ = events[-2:]
    assert failed["reason"].startswith(f"{NAMES[rank]}: rank {rank}"), failed
    assert REASONS[how] in failed["reason"]
    assert exit_["code"] == (-signal.SIGKILL if how == "kill" else 1)
    assert exit_["seen"] - events[0]["seen"] < SOON
    assert f"failed: {failed['reason']} (output: " in pair.end_of(folder)
    assert pair.nothing_is_left()


def supervisor(engine: LocalEngine) -> int:
    until = time.monotonic() + SOON
    while time.monotonic() < until:
        found = [pid for pid in descendants(engine._server.pid) if os.getsid(pid) == pid]
        if found and len(descendants(found[0])) == 1:
            return found[0]
        time.sleep(0.05)
    raise AssertionError("no run has begun")


@pytest.mark.parametrize("lost", [0, 1])
def test_node__that_vanishes_fails_the_run_on_the_other(pair: Pair, specify: Specify, lost: int) -> None:
    folder = specify(f"lost-{lost}", how="hang", rank=1, when="2")
    pair.first.start(folder)
    events: list[Event] = []
    begin = time.monotonic()
    while not any(event.get("phase") == "load" for event in events):
        assert time.monotonic() < begin + SOON, events
        events += [event for _, event in pair.first.events(0.1)]
    time.sleep(2.0)  # into the fit
    os.kill(supervisor((pair.first, pair.other)[lost]), signal.SIGKILL)
    begin = time.monotonic()
    while events[-1]["event"] != "exit":
        assert time.monotonic() < begin + SOON, events
        events += [event for _, event in pair.first.events(0.1)]
    end = pair.end_of(folder)
    if lost:
        assert events[-2]["reason"] == f"{NAMES[1]} fell silent", events
    else:
        assert f"failed: {NAMES[0]} is gone" in end
    assert pair.nothing_is_left()


@pytest.mark.parametrize("strategy", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_two_nodes__give_what_two_devices_of_one_give(
    pair: Pair, specify: Specify, strategy: str
) -> None:
    """After all the failures."""
    found = {}
    for name, trainer in ((f"two-{strategy}", {"nodes": 2}), (f"one-{strategy}", {"devices": 2})):
        folder = specify(name, {"strategy": strategy, **trainer})
        events = run(pair.first, folder)[folder]
        assert events[-2]["event"] == "done", events
        found[name[:3]] = {key: value for event in events for key, value in event.get("metrics", {}).items()
                       if key.startswith("val/") or key == "train/loss"}
    assert pair.end_of(Path(f"two-{strategy}")).endswith(": done")
    assert "val/loss" in found["two"]
    assert found["two"] == pytest.approx(found["one"], abs=1e-6)
    assert pair.nothing_is_left()


def test_command__on_each_node(tmp_path: Path, write: Callable[..., Path]) -> None:
    study = write(techniques={"full": FULL}, seeds=[0], trainer={
        "max_epochs": 1, "accelerator": "cpu", "devices": 1, "nodes": 2})
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "NNODES": "2"}
    folders = [tmp_path / "first", tmp_path / "other"]
    commands = []
    for number, folder in enumerate(folders):
        folder.mkdir()
        commands.append(begin(folder, "run", study, NODE_RANK=str(number), **address))
    assert commands[0].wait() == 0, said(folders[0])
    assert commands[1].wait(10) == 0, said(folders[1])
    assert "-seed0: done" in said(folders[1])
    assert (folders[0] / "results" / "small" / "runs.csv").read_text().count("FINISHED") == 1
    assert not alive(folders[0]) and not alive(folders[1])
    assert [path.name for path in folders[1].iterdir()] == ["said.log"], "all is the first node's"


@pytest.mark.parametrize(("environment", "what"), [
    ({}, "this command was started on one node"),
    ({"NODE_RANK": "0", "NNODES": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"},
     "this command was started on 3 nodes"),
    ({"NODE_RANK": "0", "NNODES": "2"}, "nothing where the first is"),
    ({"GROUP_RANK": "0", "GROUP_WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "4"}, "several ftlab commands"),
    ({"NODE_RANK": "0", "NNODES": "2", "MASTER_ADDR": "192.0.2.1", "MASTER_PORT": "29500"},
     "192.0.2.1:29500, where the nodes are to meet, cannot be opened"),
])
def test_run__without_its_nodes_is_refused(
    here: Callable[..., tuple[int, str, str]], write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path, environment: dict[str, str], what: str,
) -> None:
    study = write(trainer={"nodes": 2, "accelerator": "cpu"})
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    code, _, errors = here("run", study)
    assert code == 2
    assert what in errors
    assert not (tmp_path / "results").exists()


SLURM = {"SLURM_NODEID": "1", "SLURM_NNODES": "2", "SLURM_NTASKS": "2", "SLURM_JOB_ID": "712345"}


@pytest.mark.parametrize(("environment", "node"), [
    ({}, None),
    ({"SLURM_NODEID": "0", "SLURM_NNODES": "1"}, None),
    ({"GROUP_RANK": "1", "GROUP_WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "a",
      "MASTER_PORT": "29500", "TORCHELASTIC_USE_AGENT_STORE": "True", **SLURM},
     Node(1, 2, "a", 29500, served=True)),
    ({**SLURM, "SLURM_JOB_NODELIST": "x1", "SLURM_STEP_NODELIST": "gpu[07-08]"}, Node(1, 2, "gpu07", 17345)),
    ({**SLURM, "SLURM_JOB_NODELIST": "a,b", "MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "5"},
     Node(1, 2, "10.0.0.7", 5)),
])
def test_node__is_what_started_the_command_says(environment: dict[str, str], node: Node | None) -> None:
    assert Node.here(environment) == node
    assert node is None or Node.of_text(node.text) == node


def test_check__wants_one_run_at_a_time() -> None:
    node = Node(0, 2, "127.0.0.1", 1)
    check(node, Requirements(nodes=2), None)
    check(None, Requirements(), 3)
    with pytest.raises(InputError, match="one at a time"):
        check(node, Requirements(nodes=2), 2)


def test_follow__says_that_the_first_node_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftlab.studies.nodes.JOIN", 1.0)
    engine = LocalEngine(node=(node := Node(1, 2, "127.0.0.1", free_port())))
    with pytest.raises(FtlabError, match="no answer from node 0"):
        follow(node, engine, Requirements(accelerator="cpu", nodes=2), lambda line: None)


def test_cell_hash__knows_several_nodes_alone() -> None:
    before = {"trainer": {"devices": 2}}
    for same in (None, 1):
        assert cell_hash({"trainer": {"devices": 2, "nodes": same}}) == cell_hash(before)
    assert cell_hash({"trainer": {"devices": 2, "nodes": 2}}) != cell_hash(before)


def test_settings__count_the_processes_of_all_nodes() -> None:
    assert TrainerSettings(devices=4, nodes=2, strategy="fsdp").processes == 8
    with pytest.raises(ValueError, match="at least 2 devices"):
        TrainerSettings(strategy="fsdp", nodes=1)
    with pytest.raises(ValueError, match="nodes must be at least 1"):
        TrainerSettings(nodes=0)
