"""Studies and sweeps on a Ray cluster of two nodes, one of which may vanish."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
import yaml
from ray.cluster_utils import Cluster

from ftlab import cli
from ftlab.errors import InputError
from ftlab.studies.display import Display
from ftlab.studies.engine import SPECIFICATION, Engine, Machine, Requirements
from ftlab.studies.engines import make_engine
from ftlab.studies.ray_cluster import portion, room
from ftlab.studies.ray_engine import RayEngine
from ftlab.studies.study import load_study
from ftlab.sweeps.coordinator import run_sweep
from ftlab.sweeps.study_runs import run_study
from ftlab.sweeps.sweep import load_sweep
from ftlab.tracking.tracker import Tracker
from ftlab.training.state_files import read_manifest

UNRENDERED = True
WAITING = """
import os
import time
from pathlib import Path
from typing import Literal

from ftlab.techniques.linear_probe import LinearProbe

HERE = Path(__file__).parent


class Waiting(LinearProbe):
    \"\"\"A linear probe whose fit does not begin while there is a file `wait`.\"\"\"

    def __init__(self, lr: float = 5e-3, solver: Literal["lbfgs"] | None = None) -> None:
        super().__init__(lr, solver=solver)

    def on_train_start(self) -> None:
        super().on_train_start()
        (HERE / f"begun-{os.getpid()}").touch()
        while (HERE / "wait").exists():
            time.sleep(0.05)
"""
HALTING = """
import os
import time
from pathlib import Path

from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.training.state_files import read_manifest

HERE = Path(__file__).parent


class Halting(FullFineTuning):
    \"\"\"Full fine-tuning that halts while there is a file `halt`, once a state is written.\"\"\"

    def on_train_batch_end(self, *args: object) -> None:
        super().on_train_batch_end(*args)
        if (HERE / "halt").exists():
            time.sleep(0.05)
            states = read_manifest(Path(self.trainer.default_root_dir, "state"))
            if any(state["step"] for state in states):
                (HERE / f"halted-{os.getpid()}").touch()
                while (HERE / "halt").exists():
                    time.sleep(0.05)
"""
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
Write = Callable[..., Path]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Path]:
    """Where the nodes' processes write; a technique of the user's is there too."""
    # Short, since names of sockets in it may have about a hundred characters.
    folder = Path(tempfile.mkdtemp(prefix="ray"))
    (folder / "ray").mkdir()
    (folder / "waiting.py").write_text(WAITING)
    (folder / "halting.py").write_text(HALTING)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setenv("PYTHONPATH", str(folder), prepend=":")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # its 15 starves runs beside other tests
        patch.syspath_prepend(str(folder))
        yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def cluster(nodes: Path) -> Iterator[Cluster]:
    """A head with one CPU core; tests add nodes. Nothing is left of it at the end."""
    made = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    yield made
    made.shutdown()
    name = str(nodes).encode()  # in the nodes' environment, and so in that of all they started
    wait_for(lambda: not processes(  # but for the tests' own server, which goes on
        lambda p: name in (p / "environ").read_bytes()
        and b"warm_processes" not in (p / "cmdline").read_bytes()), "left behind")
    assert not list(nodes.glob("ftlab-ray-*"))


def processes(of: Callable[[Path], bool]) -> list[str]:
    """Command lines of the processes whose folder in /proc is such."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and int(process.name) != os.getpid() and of(process):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # it has ended, or is another user's
            continue
    return found


def in_folder(folder: Path) -> list[str]:
    """Processes whose current folder it is."""
    return processes(lambda process: (process / "cwd").readlink() == folder)


def wait_for(ready: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + 120  # on a busy machine
    while not ready():
        assert time.monotonic() < until, what
        time.sleep(0.05)


def machines(*said: tuple[int, int]) -> list[Machine]:
    return [Machine(cores, tuple(map(str, range(gpus)))) for cores, gpus in said]


PORTIONS = {  # (cores, GPUs) of the nodes, what a run wants, workers -> CPUs and GPUs of each, room
    "a core a process": ([(4, 0), (2, 0)], Requirements(), None, (1, 0), 6),
    "fewer runs get more cores": ([(4, 0), (2, 0)], Requirements(), 2, (2, 0), 3),
    "one run gets the largest node": ([(4, 0), (2, 0)], Requirements(), 1, (4, 0), 1),
    "no run is spread over nodes": ([(3, 0), (3, 0)], Requirements(2), None, (3, 0), 2),
    "more than there is room for wait": ([(2, 0)], Requirements(), 9, (1, 0), 2),
    "GPUs are not shared": ([(8, 4), (8, 1), (4, 0)], Requirements(2), None, (4, 2), 2),
    "cores go to the GPUs": ([(8, 4)], Requirements(), None, (2, 1), 4),
    "few cores hold GPUs back": ([(2, 4)], Requirements(), None, (1, 1), 2),
    "asked for the CPU": ([(8, 4)], Requirements(1, "cpu"), None, (1, 0), 8),
}


@pytest.mark.parametrize("case", PORTIONS)
def test_portion__of_a_cluster(case: str) -> None:
    nodes, need, workers, each, fit = PORTIONS[case]
    assert portion(machines(*nodes), need, workers) == each
    assert room(machines(*nodes), *each) == fit


@pytest.mark.parametrize(("said", "cpus", "gpus", "count", "fit"), [
    ([(4, 0), (2, 0)], 1, 0, 2, 2),  # the second node bounds both
    ([(4, 0), (4, 0), (1, 0)], 1, 0, 2, 4),
    ([(1, 0), (1, 0), (1, 0)], 1, 0, 2, 1),
    ([(9, 0)], 1, 0, 2, 0),
    ([(8, 4), (8, 2), (8, 0)], 2, 2, 2, 1),
])  # fmt: skip
def test_room__for_runs_of_several_nodes(
    said: list[tuple[int, int]], cpus: int, gpus: int, count: int, fit: int
) -> None:
    assert room(machines(*said), cpus, gpus, count) == fit


@pytest.mark.parametrize(("need", "workers", "said"), [
    (Requirements(2, "cpu", nodes=3), None, "2 devices on each of 3 nodes, and not so many nodes"),
    (Requirements(3), None, "wants 3 devices, and no node of the Ray cluster has CPU cores for it"),
    (Requirements(1, "gpu"), None, "no node of the Ray cluster has GPUs"),
    (Requirements(), 0, "--workers 0"),
])  # fmt: skip
def test_portion__refuses_what_no_node_holds(need: Requirements, workers: int | None, said: str) -> None:
    with pytest.raises(InputError, match=said):
        portion(machines((2, 0), (2, 0)), need, workers)


@pytest.mark.parametrize(("arguments", "said"), [
    (["--address", "10.0.0.1:6379"], "only a Ray cluster has one"),
    (["--engine", "ray", "--address", "ray://10.0.0.1:10001"], "Ray's client"),
    (["--engine", "ray", "--address", "nowhere"], "--address nowhere: "),
    (["--engine", "ray"], "--address auto: "),
])  # fmt: skip
def test_run__refuses_addresses_of_no_cluster(
    arguments: list[str], said: str, write: Write, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))  # where a cluster of this machine would be
    monkeypatch.setattr(sys, "argv", ["ftlab", "run", str(write()), *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    errors = capfd.readouterr().err
    assert said in errors
    assert "mend: " in errors
    assert not (tmp_path / "mlflow.db").exists()
    assert not ray.is_initialized()


def test_make_engine__says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ftlab.studies.ray_engine")
    monkeypatch.delitem(sys.modules, "ftlab.studies.ray_cluster")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match="Ray is not installed") as caught:
        make_engine("ray")
    assert caught.value.mend == 'pip install "ftlab[ray]"'


def test_run__on_two_nodes_gives_what_one_machine_gives(
    cluster: Cluster, write: Write, tmp_path: Path
) -> None:
    node = cluster.add_node(**NODE)
    path = write(techniques={"probe": {"class_path": "LinearProbe", "init_args": {"lr": 0.03, "solver": None}}})
    done = subprocess.run(
        [sys.executable, "-m", "ftlab.cli", "run", path, "--engine", "ray", "--address",
         cluster.address], cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    cluster.remove_node(node)
    study = load_study(path)
    run_study(study, f"sqlite:///{tmp_path}/here.db", tmp_path / "here")
    stores = [Tracker(f"sqlite:///{tmp_path}/{name}.db") for name in ("here", "mlflow")]
    (here,), (there,) = (store.cells("small") for store in stores)
    for one, other in zip(here.finished, there.finished, strict=True):
        scores = {name: value for name, value in one.metrics.items()
                  if not name.startswith("cost/") and not name.endswith("seconds")}
        assert scores.items() <= other.metrics.items()
        kept, brought = (artifacts(store, run.run_id)
                         for store, run in zip(stores, (one, other), strict=True))
        assert kept.keys() == brought.keys()
        (weights,) = (name for name in kept if name.endswith(".safetensors"))
        assert kept[weights] == brought[weights]
        assert len(brought["predictions/test.parquet"]) > 100


def artifacts(store: Tracker, run_id: str) -> dict[str, bytes]:
    uri = store._client.get_run(run_id).info.artifact_uri
    folder = Path(uri.removeprefix("file://"))
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*") if path.is_file()}


class Removal(Display):
    """Takes a node away once two trials go on, and the coordinator has heard of both."""

    def __init__(self, folder: Path, remove: Callable[[], None]) -> None:
        super().__init__()
        self.folder, self.remove = folder, remove
        self.heard: set[str] = set()
        self.dropped: list[str] = []

    def progress(self, title: str, phase: str, done: int, total: int) -> None:
        super().progress(title, phase, done, total)
        self.heard.add(title)

    def idle(self) -> None:
        super().idle()
        begun = len(list(self.folder.glob("begun-*")))
        if begun == len(self.heard) == 2 and (self.folder / "wait").exists():
            self.remove()
            (self.folder / "wait").unlink()

    def run_dropped(self, title: str) -> None:
        super().run_dropped(title)
        self.dropped.append(title)


@pytest.mark.slow
def test_sweep__a_node_that_vanishes_costs_its_trials_an_attempt(
    cluster: Cluster, nodes: Path, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    study = write(techniques={"probe": {"class_path": "waiting.Waiting"}})
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({
        "study": str(study), "trials": 4, "spaces": {"probe": {"lr": {"low": 1e-3, "high": 0.1}}}}))
    (nodes / "wait").touch()
    node = cluster.add_node(**NODE)
    display = Removal(nodes, lambda: cluster.remove_node(node, allow_graceful=False))
    sweep = load_sweep("sweep.yaml", allow=["waiting"])
    outcome = run_sweep(sweep, display=display, engine=RayEngine(cluster.address))
    (standing,) = outcome.standings
    assert outcome.over
    assert [trial.state.name for trial in standing.trials] == ["COMPLETE"] * 4
    (dropped,) = display.dropped
    number = dropped.rpartition(" ")[2]
    first = [(str(i), "1", "LOST" if str(i) == number else "COMPLETE") for i in range(4)]
    assert attempts(tmp_path) == sorted([*first, (number, "2", "COMPLETE")])
    said = "".join(capfd.readouterr())
    assert "lost with its worker on" in said
    assert "raylet" not in said  # its last words are long


class Kill(Display):
    """Kills a run's worker once it has halted and a state of it has come back."""

    def __init__(self, folder: Path, work: Path, kill: Callable[[int], None]) -> None:
        super().__init__()
        self.folder, self.work, self.kill = folder, work, kill
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        super().note(text)
        self.notes.append(text)

    def idle(self) -> None:
        super().idle()
        halted = list(self.folder.glob("halted-*"))
        back = [state for path in self.work.glob("*/state") for state in read_manifest(path)]
        if halted and (self.folder / "halt").exists() and any(state["step"] for state in back):
            self.kill(int(halted[0].name.partition("-")[2]))
            (self.folder / "halt").unlink()


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.slow
@pytest.mark.parametrize("what", ["worker", "node"])
def test_run__that_loses_its_place_goes_on_elsewhere(
    cluster: Cluster, nodes: Path, write: Write, tmp_path: Path, what: str
) -> None:
    """From the last state that came back: the numbers are those of a run that was left alone."""
    path = write(techniques={"full": {"class_path": "halting.Halting"}}, seeds=[0],
                 trainer={"max_epochs": 10, "save_every": 1e-6})
    study = load_study(path, allow=["halting"])
    run_study(study, f"sqlite:///{tmp_path}/here.db", tmp_path / "here")
    for halted in nodes.glob("halted-*"):
        halted.unlink()
    (nodes / "halt").touch()
    node = cluster.add_node(**NODE)
    raylet = node.all_processes["raylet"][0].process.pid

    def kill(run: int) -> None:
        if what == "node" and parent(parent(parent(run))) == raylet:
            cluster.remove_node(node, allow_graceful=False)
        else:  # with the head, where a run may be too, the cluster would end
            os.kill(parent(parent(run)), signal.SIGKILL)

    outcome = run_study(study, f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "there",
                        display=Kill(nodes, tmp_path / "there" / "small" / ".work", kill),
                        engine=RayEngine(cluster.address))
    if node in cluster.list_all_nodes():
        cluster.remove_node(node)
    assert outcome.failed == 0
    stores = [Tracker(f"sqlite:///{tmp_path}/{name}.db") for name in ("here", "mlflow")]
    one, other = (store.cells("small")[0].finished[0] for store in stores)
    scores = {name: value for name, value in one.metrics.items()
              if not name.startswith("cost/") and not name.endswith("seconds")}
    assert scores.items() <= other.metrics.items()
    note = stores[1]._client.get_run(other.run_id).data.tags["ftlab.note"]
    assert "continued at step" in note


@pytest.mark.slow
def test_run__on_several_nodes_gives_what_several_devices_of_one_give(
    cluster: Cluster, nodes: Path, write: Write, tmp_path: Path
) -> None:
    """Two runs, of which the first loses a node, and goes on with others from what had come back."""
    found = {}

    def kill_other(rank: int) -> None:
        """A rank halts on the first node, whose actor is above its supervisor and its server."""
        servers = set()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has just ended
                if b"ftlab.studies.fork_server" in (process / "cmdline").read_bytes() and str(
                        nodes).encode() in (process / "environ").read_bytes():
                    servers.add(int(process.name))
        (other,) = {parent(pid) for pid in servers} - servers - {parent(parent(parent(rank)))}
        os.kill(other, signal.SIGKILL)

    for name in ("devices", "nodes"):
        path = write(techniques={"full": {"class_path": "halting.Halting", "init_args": {"lr": 0.01}}}, seeds=[0, 1],
                     trainer={"max_epochs": 6, "accelerator": "cpu", "save_every": 1e-6, name: 2}, select_by="val/loss")
        uri = f"sqlite:///{tmp_path}/{name}.db"
        engine = display = None
        if name == "nodes":
            for halted in nodes.glob("halted-*"):
                halted.unlink()
            (nodes / "halt").touch()
            node = cluster.add_node(**NODE)
            engine = RayEngine(cluster.address)
            # a rank, its supervisor, the server of runs, the actor
            display = Kill(nodes, tmp_path / name / "small" / ".work", kill_other)
        outcome = run_study(load_study(path, allow=["halting"]), uri, tmp_path / name, display, engine=engine)
        assert outcome.failures == []
        (cell,) = Tracker(uri).cells("small")
        found[name] = [{metric: value for metric, value in run.metrics.items() if "cost/" not in metric
                        and not metric.endswith("seconds")} for run in cell.finished]
    cluster.remove_node(node)
    assert len(found["nodes"]) == 2
    assert found["nodes"] == [pytest.approx(metrics, abs=1e-6) for metrics in found["devices"]]
    (lost,) = display.notes
    assert "seed 0: node 1 (" in lost and "it will be begun again" in lost
    run = Tracker(uri)._client.get_run(cell.finished[0].run_id)
    assert "continued at step" in run.data.tags["ftlab.note"]


def attempts(folder: Path) -> list[tuple[str, str, str]]:
    """Of the trials in a folder's store: number, attempt, how it ended."""
    client = Tracker(f"sqlite:///{folder}/mlflow.db")._client
    experiment = client.get_experiment_by_name("small").experiment_id
    found = client.search_runs([experiment], "tags.`ftlab.kind` = 'trial'")
    tags = ("ftlab.trial", "ftlab.attempt", "ftlab.state")
    return sorted(tuple(run.data.tags[tag] for tag in tags) for run in found)


@pytest.fixture
def engine(cluster: Cluster) -> Iterator[Engine]:
    made = RayEngine(cluster.address)
    made.prepare(Requirements(1, "cpu"), None, 60.0)
    yield made
    made.close()


@pytest.mark.parametrize("members", [0, 2])
def test_prune__reaches_the_run(
    engine: Engine, write: Write, tmp_path: Path, members: int
) -> None:
    """A run by itself, or each of several in a process."""
    study = write(techniques={"probe": {"class_path": "LinearProbe", "init_args": {"solver": None}}}, trainer={"max_epochs": 5000})
    (cell,) = load_study(study).cells
    run = tmp_path / "run"
    run.mkdir()
    said = {**cell.config, "seed": 0, "search": True}
    if members:
        said = {"members": [{**said, "seed": seed} for seed in range(members)],
                "trainer": cell.trainer}
    (run / SPECIFICATION).write_text(json.dumps(said))
    wait_for(lambda: engine.slots == 1, "the node that was removed")
    engine.start(run)
    seen = []
    until = time.monotonic() + 120
    while not seen or seen[-1]["event"] != "exit":
        assert time.monotonic() < until, seen
        for directory, event in engine.events(0.1):
            assert directory == run
            if event["event"] == "metrics" and "epoch" in event["metrics"]:
                engine.prune(run / str(event["member"]) if members else run)
            seen.append(event)
    assert seen[-1]["code"] == 0
    done = [event for event in seen if event["event"] == "done"]
    assert [each["metrics"]["pruned"] for each in done] == [1.0] * (members or 1)


@pytest.mark.slow
def test_run__interrupted_leaves_nothing_on_the_nodes(
    cluster: Cluster, write: Write, tmp_path: Path
) -> None:
    path = write(techniques={"probe": {"class_path": "LinearProbe", "init_args": {"solver": None}}}, trainer={"max_epochs": 500})
    process = subprocess.Popen(
        [sys.executable, "-m", "ftlab.cli", "run", path, "--plain", "--engine", "ray", "--address",
         cluster.address], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        wait_for(lambda: any("ftlab.studies.fork_server" in said for said in in_folder(tmp_path)),
                 "no place on the node")
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 143, errors
    wait_for(lambda: not in_folder(tmp_path), "left behind on the node")
    client = Tracker(f"sqlite:///{tmp_path}/mlflow.db")._client
    experiment = client.get_experiment_by_name("small").experiment_id
    runs = client.search_runs([experiment], "tags.`ftlab.kind` = 'run'")
    assert [run.info.status for run in runs] == ["KILLED"]
