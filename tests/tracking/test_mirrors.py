"""Mirrors of runs in other trackers: the same curves as MLflow's, and no failure of theirs in a run."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pages import free_port
from processes import alive, begin, said, wait_for
from scripted import ScriptedEngine, write_sweep

from ftlab.errors import InputError
from ftlab.studies.analysis_keys import check_mirror
from ftlab.studies.engine import Event
from ftlab.studies.study import Study, load_study
from ftlab.sweeps import study_runs
from ftlab.sweeps.coordinator import run_sweep
from ftlab.sweeps.study_runs import run_study
from ftlab.sweeps.sweep import load_sweep
from ftlab.tracking import mirrored
from ftlab.tracking.mirrors import base
from ftlab.tracking.mirrors.base import Mirror, MirroredRun, all_mirrors
from ftlab.tracking.tracker import Tracker

UNRENDERED = True
SECRET = "pa55-of-the-store-xyzzy"
Curves = dict[str, dict[tuple[str, int], float]]


@pytest.fixture
def file(tmp_path: Path, tiny_bert: Path, reviews: Path) -> Path:
    return write_study(tmp_path, tiny_bert, reviews)


def write_study(folder: Path, backbone: Path, data: Path, **keys: Any) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({
        "name": "small",
        "backbones": {"bert": {"class_path": "HuggingFace",
                               "init_args": {"source": str(backbone), "pooling": "mean"}}},
        "datasets": {"reviews": {"class_path": "TextClassification", "init_args": {
            "train": str(data), "max_length": 32, "batch_size": 8}}},
        "techniques": {"one": {"class_path": "LinearProbe", "init_args": {"lr": 0.01, "solver": None}},
                       "two": {"class_path": "LinearProbe", "init_args": {"lr": 0.02, "solver": None}}},
        "seeds": [0], "trainer": {"max_epochs": 2}, **keys}, sort_keys=False))
    return path


def play(specification: dict[str, Any], folder: Path) -> Iterator[Event]:
    rate = specification["technique"]["init_args"]["lr"]
    for epoch in range(1, 4):
        yield {"event": "metrics", "step": 8 * epoch, "time": 1_700_000_000_000 + epoch, "metrics": {
            "val/accuracy": rate * epoch, "train/loss": 1 / epoch, "epoch": epoch}}
    yield {"event": "done", "metrics": {"val/accuracy": rate * 3, "test/accuracy": rate, "pruned": 0.0}}


def mlflow_curves(folder: Path, kind: str = "run") -> Curves:
    """By technique, every point that MLflow has."""
    tracker = Tracker(f"sqlite:///{folder}/mlflow.db")
    runs = tracker._runs.search(tracker._runs.experiment("small"), f"tags.`ftlab.kind` = '{kind}'")
    return {run.data.tags["ftlab.technique"]: {
        (name, point.step): point.value for name in run.data.metrics if not name.startswith("param/")
        for point in tracker._client.get_metric_history(run.info.run_id, name)} for run in runs}


def run(study: Study, folder: Path, mirror: list[str] | None = None, **more: Any) -> list[str]:
    """Run a study in a folder; the notes that its user is shown."""
    from ftlab.studies.display import Display

    display, notes = Display(), []
    display.note = notes.append  # type: ignore[method-assign]
    outcome = run_study(study, f"sqlite:///{folder}/mlflow.db", folder / "results", display,
                        engine=ScriptedEngine(play), mirror=mirror, **more)
    assert (outcome.finished, outcome.failed) == (len(study.cells) * len(study.seeds), 0)
    return notes


def tensorboard_curves(folder: Path) -> Curves:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = {}
    for place in {path.parent for path in folder.glob("results/.tensorboard/small/**/events.*")}:
        events = accumulator.EventAccumulator(str(place), {"scalars": 0})
        events.Reload()
        points = [(tag, event.step, event.value) for tag in events.Tags()["scalars"]
                  for event in events.Scalars(tag)]
        found[place.parent.name.split()[0]] = {(tag, step): value for tag, step, value in points}
        assert len(found[place.parent.name.split()[0]]) == len(points), "a point stands there twice"
    return found


def same(curves: Curves, reference: Curves) -> bool:
    assert curves.keys() == reference.keys()
    for name, points in reference.items():
        assert curves[name].keys() == points.keys()
        for point, value in points.items():  # float32, as TensorBoard keeps numbers
            assert math.isclose(curves[name][point], np.float32(value), rel_tol=1e-7), (name, point)
    return True


def test_tensorboard__has_mlflows_curves(file: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    assert not run(load_study(file), tmp_path, ["tensorboard"])
    assert same(tensorboard_curves(tmp_path), mlflow_curves(tmp_path))
    assert (tmp_path / "results/.tensorboard/.gitignore").read_text() == "*\n"


def test_tensorboard__of_a_sweep_has_the_trials(tmp_path: Path, tiny_bert: Path, reviews: Path) -> None:
    pytest.importorskip("tensorboard")
    path = write_sweep(tmp_path, tiny_bert, reviews, {"mirror": ["tensorboard"]}, trials=1)
    run_sweep(load_sweep(path, storage=str(tmp_path / "s.journal")), f"sqlite:///{tmp_path}/mlflow.db",
              tmp_path / "results", engine=ScriptedEngine(play))
    found, stored = tensorboard_curves(tmp_path), mlflow_curves(tmp_path, "trial")
    shown = {name for name, _ in found["probe"]}
    assert {"val/accuracy", "train/loss", "test/accuracy"} <= shown
    assert all(value == pytest.approx(stored["probe"][point]) for point, value in found["probe"].items())


@pytest.mark.slow
def test_killed_and_continued__each_point_once(tmp_path: Path, tiny_bert: Path, reviews: Path) -> None:
    pytest.importorskip("tensorboard")
    techniques = {"full": {"class_path": "FullFineTuning", "init_args": {"lr": 0.001}}}
    write_study(tmp_path, tiny_bert, reviews, techniques=techniques, mirror=["tensorboard"],
                trainer={"max_epochs": 10, "save_every": 1e-6})

    def steps() -> int:
        found = [0]
        for path in tmp_path.glob("results/small/.work/*/state/states.json"):
            found += [state["step"] for state in json.loads(path.read_text())["states"]]
        return max(found)

    for _ in range(2):
        before = steps()
        command = begin(tmp_path, "run", "study.yaml")
        wait_for(lambda before=before: steps() > before)
        os.kill(command.pid, signal.SIGKILL)
        command.wait()
        wait_for(lambda: not alive(tmp_path))
    assert begin(tmp_path, "run", "study.yaml").wait(600) == 0, said(tmp_path)
    stored = mlflow_curves(tmp_path)
    assert len(stored["full"]) > 20
    assert same(tensorboard_curves(tmp_path), stored)


def records(data: bytes) -> Iterator[bytes]:
    """What a .wandb file holds: LevelDB's log format (blocks of 32 KiB) behind a header of 7 bytes."""
    assert data[:4] == b":W&B"
    place, whole = 7, b""
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        length, kind = struct.unpack("<HB", data[place + 4:place + 7])
        whole += data[place + 7:place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield whole
            whole = b""


def test_wandb__offline_has_mlflows_curves_and_no_secret(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setattr(sys, "argv", ["ftlab", "--tracking-uri", f"postgresql://me:{SECRET}@db/x"])
    monkeypatch.setenv("SOME_API_KEY", SECRET)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    assert not run(load_study(file), tmp_path, ["wandb"])
    found: Curves = {}
    for path in tmp_path.glob("results/.wandb/wandb/offline-run-*/run-*.wandb"):
        name, points, ended = "", {}, []
        for data in records(path.read_bytes()):
            record = Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "run":
                name = record.run.display_name
                assert record.run.project == "small"
            elif record.WhichOneof("record_type") == "history":
                row = {(item.key or "/".join(item.nested_key)): json.loads(item.value_json)
                       for item in record.history.item}
                points |= {(key, row["_step"]): value for key, value in row.items() if key[0] != "_"}
            elif record.WhichOneof("record_type") == "summary":
                points |= {(item.key or "/".join(item.nested_key), 0): json.loads(item.value_json)
                           for item in record.summary.update if item.key.startswith("test/")}
            elif record.WhichOneof("record_type") == "exit":
                ended.append(record.exit.exit_code)
        found[name.split()[0]] = points
        assert ended == [0]
    stored = {name: {point: value for point, value in points.items() if point[0] != "pruned"}
              for name, points in mlflow_curves(tmp_path).items()}
    assert found == stored
    for path in (tmp_path / "results").rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


def test_trackio__local_store_has_mlflows_curves(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("trackio")
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
import json, trackio
from trackio.sqlite_storage import SQLiteStorage
from pathlib import Path
from ftlab.tracking.mirrored import Mirrors
from ftlab.tracking.mirrors.base import MirroredRun, installed
mirrors = Mirrors(installed(["trackio"]), Path("results"))
for attempt in range(2):  # the second goes on with the first
    runs = [mirrors.begin(MirroredRun("small", name + " on a from b", "c0ffee", "seed 0", name, {{"lr": "1"}}))
            for name in ("one", "two")]
    for step in (1, 2, 3):
        for place, run in enumerate(runs):
            run.metrics({{"val/accuracy": step / 10 + place}}, step, 5)
    for run in runs:
        run.end("FINISHED", {{"test/accuracy": 0.5}})
mirrors.close(print)
print(json.dumps({{r.name: SQLiteStorage.get_logs("small", r.name, run_id=r.id) for r in trackio.Api().runs("small")}}))
print(len(trackio.Api().runs("small")))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, text=True, capture_output=True,
                          check=False, env={**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio")})
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2, "trackio's own lines stand between those of the display"
    assert lines[1] == "2"
    logs = json.loads(lines[0])
    for place, name in enumerate(("one", "two")):
        rows = logs[f"{name} on a from b, seed 0"]
        assert [(row["step"], row["val/accuracy"]) for row in rows if "val/accuracy" in row] == [
            (step, step / 10 + place) for step in (1, 2, 3)]
        assert rows[-1]["test/accuracy"] == 0.5


class Failing(Mirror):
    """Raises at one point of the contract, or hangs there."""

    library, install = "failing", "pip install failing"
    point = ""
    seen: list[str] = []
    hang: threading.Event | None = None

    def _at(self, name: str) -> None:
        self.seen.append(name)
        if name == self.point:
            if self.hang is not None:
                self.hang.wait()
            raise RuntimeError(f"no answer from https://me:{SECRET}@there.example\nmore")

    def begin(self, run: MirroredRun) -> None:
        self._at("begin")

    def metrics(self, values: Mapping[str, float], step: int, milliseconds: int) -> None:
        self._at("metrics")

    def end(self, status: base.Status, final: Mapping[str, float]) -> None:
        self._at("end")


@pytest.mark.parametrize("point", ["begin", "metrics", "end"])
def test_failing_mirror__is_one_note_a_run_and_nothing_else(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    kind = type("Failing", (Failing,), {"point": point, "seen": []})
    monkeypatch.setattr(study_runs, "installed", lambda names: [kind])
    study = load_study(file)
    notes = run(study, tmp_path)
    assert sorted(notes) == [
        f"{cell.key.title}, seed 0: failing mirrors no more of this run: no answer from "
        "https://there.example" for cell in study.cells]
    assert kind.seen.count(point) == 2  # left alone afterwards
    assert all(len(points) > 8 for points in mlflow_curves(tmp_path).values())


def test_hanging_mirror__delays_the_end_alone(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hang = threading.Event()
    kind = type("Failing", (Failing,), {"point": "begin", "hang": hang})
    monkeypatch.setattr(study_runs, "installed", lambda names: [kind])
    monkeypatch.setattr(mirrored, "PATIENCE", 0.2)
    try:
        assert run(load_study(file), tmp_path) == [
            "failing does not answer: some of what it mirrors is missing there"]
    finally:
        hang.set()


def test_far_behind__is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    hang = threading.Event()
    monkeypatch.setattr(mirrored, "LARGEST", 5)
    kind = type("Failing", (Failing,), {"point": "begin", "hang": hang})
    mirrors = mirrored.Mirrors([kind])
    one = mirrors.begin(MirroredRun("s", "c", "0", "seed 0", "t", {}))
    for step in range(20):
        one.metrics({"loss": 1.0}, step, 0)
    assert list(one.notes) == ["failing mirrors no more of this run: it is 5 writes behind"]
    hang.set()


def test_repeated_steps__reach_a_mirror_once() -> None:
    kind = type("Failing", (Failing,), {"seen": []})
    mirrors = mirrored.Mirrors([kind])
    one = mirrors.begin(MirroredRun("s", "c", "0", "seed 0", "t", {}))
    for step in (1, 2, 3, 2, 3, 4):  # as one that goes on from its state of step 1
        one.metrics({"loss": 1.0}, step, 0)
    mirrors.close(pytest.fail)
    assert kind.seen == ["begin", *["metrics"] * 4]


@pytest.mark.parametrize("given", [{"mirror": ["tensorboard"]}, {}], ids=["file", "option"])
def test_uninstalled__one_line_before_anything_runs(
    tmp_path: Path, tiny_bert: Path, reviews: Path, monkeypatch: pytest.MonkeyPatch,
    here: Callable[..., tuple[int, str, str]], given: dict[str, Any]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec",
                        lambda name, *more: None if name == "tensorboard" else find(name, *more))
    write_study(tmp_path, tiny_bert, reviews, **given)
    code, _, errors = here("run", "study.yaml", *([] if given else ["--mirror", "tensorboard"]))
    assert code == 2
    assert errors.splitlines()[-2:] == [
        "error: mirror: tensorboard is not installed", '  mend: pip install "ftlab[tensorboard]"'], errors
    assert not (tmp_path / "mlflow.db").exists()
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(("written", "message"), [
    ("tensorboard", "expected a list"), (["wandb", "wandb"], "stands twice")])
def test_wrong_lists__are_refused(written: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"mirror: .*{message}"):
        check_mirror(written, "study.yaml: mirror")


def test_key__orphans_no_cell(tmp_path: Path, tiny_bert: Path, reviews: Path) -> None:
    plain = load_study(write_study(tmp_path, tiny_bert, reviews))
    mirrored_too = load_study(write_study(tmp_path, tiny_bert, reviews, mirror=["wandb", "tensorboard"]))
    assert [cell.key for cell in plain.cells] == [cell.key for cell in mirrored_too.cells]
    assert mirrored_too.mirror == ("wandb", "tensorboard")


def test_room__has_the_extras_of_the_project() -> None:
    import tomllib

    extras = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"][
        "optional-dependencies"]
    for name, mirror in all_mirrors().items():
        assert name in extras or "ftlab[" not in mirror.install


@pytest.mark.slow
def test_browser__sees_the_run_in_tensorboard(file: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    if (browser := shutil.which("chromium")) is None:
        pytest.skip("no browser here: apt install chromium")
    run(load_study(file), tmp_path, ["tensorboard"])
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", "--logdir", "results/.tensorboard", "--port", str(port),
         "--host", "127.0.0.1"], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 120
        page = ""
        while "one on reviews from bert" not in page:
            assert time.monotonic() < end, page[-2000:]
            page = subprocess.run(
                [browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000",
                 f"--user-data-dir={tmp_path / 'browser'}", "--dump-dom", f"http://127.0.0.1:{port}"],
                capture_output=True, text=True, check=False, timeout=100).stdout
        assert "two on reviews from bert" in page
        assert "seed 0" in page
    finally:
        server.terminate()
        server.wait(30)
