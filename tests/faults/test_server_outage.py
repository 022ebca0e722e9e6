"""A real MLflow server that is killed, answers nonsense, or does not answer."""

from __future__ import annotations

import csv
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow_server import MODES, Proxy, Server
from processes import begin, said, wait_for

from ftlab.errors import FtlabError
from ftlab.tracking import outbox
from ftlab.tracking.records import CellKey
from ftlab.tracking.spool import FOLDER
from ftlab.tracking.tracker import Tracker

UNRENDERED = True
pytestmark = pytest.mark.slow
STUDY = """\
name: small
backbones: {{bert: {{class_path: HuggingFace, init_args: {{source: {bert}, pooling: mean}}}}}}
datasets:
  reviews: {{class_path: TextClassification, init_args: {{train: {reviews}, max_length: 32, batch_size: 8}}}}
techniques: {{probe: {{class_path: LinearProbe, init_args: {{solver: null}}}}, lora: LoRA, bias: BitFit}}
seeds: [0, 1]
trainer: {{max_epochs: 3}}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server"))
    made.start()
    yield made
    made.kill()


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    made = Proxy(server.port, patience=8.0)
    yield made
    made.close()


@pytest.mark.parametrize("mode", MODES)
def test_answers__of_any_kind_lose_nothing_and_make_nothing_twice(
    mode: str, proxy: Proxy, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    monkeypatch.setattr(outbox, "FIRST_PAUSE", 0.2)
    draw, study = random.Random(MODES.index(mode)), f"of {mode}"
    tracker = Tracker(proxy.uri, unsent=tmp_path / FOLDER)
    tracker.open_study(study, {})
    files = tmp_path / "files"
    files.mkdir()
    (files / "a.txt").write_text("a")
    longest = 0.0
    runs = {}
    for number in range(6):
        proxy.mode = mode if draw.random() < 0.6 else ""
        cell = tracker.open_cell(CellKey(study, "b", "d", f"t{number // 2}", "c"), {"p": 1}, [0, 1],
                                 number // 2)
        run = tracker.open_run(cell, number % 2, {"seed": number % 2})
        tracker.log_dataset(run, "d", "f" * 64, "a.csv", {"train": {"rows": 3}})
        for step in range(20):
            if draw.random() < 0.2:
                proxy.mode = mode if draw.random() < 0.6 else ""
            began = time.monotonic()
            tracker.log_metrics(run, {"train/loss": 1 / (step + 1)}, step, 1000 + step)
            tracker.flush()
            longest = max(longest, time.monotonic() - began)
        tracker.log_artifacts(run, files)
        tracker.end_run(run, "FINISHED")
        tracker.end_cell(cell)
        runs[number] = run
    proxy.mode = mode
    tracker._outbox.patience = 0.5
    try:
        tracker.close()
    except FtlabError as error:
        assert "writes wait" in str(error)
    proxy.mode = ""
    again = Tracker(proxy.uri, unsent=tmp_path / FOLDER)
    again.open_study(study, {})
    again.close()
    client = MlflowClient(server.uri)
    records = Tracker(server.uri).cells(study)
    assert [[run.seed for run in record.finished] for record in records] == [[0, 1]] * 3
    experiment = client.get_experiment_by_name(study).experiment_id
    found = client.search_runs([experiment])
    assert len(found) == 9  # no ghosts
    for record in records:
        for run in record.runs:
            steps = [m.step for m in client.get_metric_history(run.run_id, "train/loss")]
            assert sorted(steps) == list(range(20))
            assert [f.path for f in client.list_artifacts(run.run_id)] == ["a.txt"]
            assert len(client.get_run(run.run_id).inputs.dataset_inputs) == 1
    assert not list((tmp_path / FOLDER).glob("*"))
    print(f"{mode}: {proxy.asked} requests, longest call {longest:.2f} s")


def table(folder: Path) -> dict[tuple[str, str], str]:
    with (folder / "results" / "small" / "runs.csv").open(newline="") as file:
        return {(row["technique"], row["seed"]): row["test/accuracy"]
                for row in csv.DictReader(file)}


@pytest.mark.parametrize("attempt", range(3))
def test_server_killed_for_good__sync_killed_again_and_again(
    attempt: int, tiny_bert: Path, reviews: Path, tmp_path: Path
) -> None:
    server, folder = Server(tmp_path), tmp_path / "work"
    folder.mkdir()
    (folder / "small.yaml").write_text(STUDY.format(bert=tiny_bert, reviews=reviews))
    server.start()
    draw = random.Random(attempt)
    run = begin(folder, "run", "small.yaml", "--plain", "--tracking-uri", server.uri)
    wait_for(lambda: said(folder).count("/6] ") > attempt or run.poll() is not None)
    server.kill()
    assert run.wait(300) == 1, said(folder)
    assert "writes wait in" in said(folder)
    assert "ftlab sync" in said(folder)
    assert said(folder).count("/6] ") == 6  # training went on
    assert begin(folder, "run", "small.yaml", "--plain", "--tracking-uri", server.uri).wait(300) == 2
    server.start()
    kills = 0
    for _ in range(4):
        sync = begin(folder, "sync")
        time.sleep(draw.uniform(2.0, 8.0))
        if sync.poll() is None:
            os.kill(sync.pid, signal.SIGKILL)
            kills += 1
        sync.wait(60)
    assert begin(folder, "sync").wait(300) == 0, said(folder)
    assert not list((folder / "results" / "small").glob(f"{FOLDER}/*"))
    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name("small").experiment_id
    runs = client.search_runs([experiment], "tags.`ftlab.kind` = 'run'")
    assert [found.info.status for found in runs] == ["FINISHED"] * 6
    for found in runs:
        for name in found.data.metrics:
            steps = [m.step for m in client.get_metric_history(found.info.run_id, name)]
            assert len(steps) == len(set(steps)), name
        names = {f.path for f in client.list_artifacts(found.info.run_id)}
        assert {"checkpoint", "predictions", "run.json"} <= names
    before = len(said(folder))
    assert begin(folder, "run", "small.yaml", "--plain", "--tracking-uri", server.uri).wait(300) == 0
    assert "6 of 6 runs are finished already" in said(folder)[before:]
    server.kill()
    other = tmp_path / "undisturbed"
    other.mkdir()
    (other / "small.yaml").write_text(STUDY.format(bert=tiny_bert, reviews=reviews))
    assert begin(other, "run", "small.yaml", "--plain").wait(300) == 0, said(other)
    assert table(folder) == table(other)
    print(f"sync killed {kills} times")
