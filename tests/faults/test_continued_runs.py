"""`ftlab run` that is killed on its way, again and again, ends with the numbers of one left alone."""

import csv
import json
import os
import signal
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from processes import alive, begin, said, trials, wait_for

from ftlab.tracking.tracker import Tracker
from ftlab.training.state_files import MANIFEST

UNRENDERED = True
CLOCKED = ("seconds", "bytes", "joules", "run", "best_epoch")


def write(folder: Path, backbone: Path, data: Path, only: str = "ema,full", **trainer: Any) -> Path:
    techniques = {"ema": {"class_path": "EMA", "init_args": {"decay": 0.9, "technique": {
                      "class_path": "LoRA", "init_args": {"lr": 0.01}}}},
                  "full": {"class_path": "FullFineTuning", "init_args": {"lr": 0.001}}}
    folder.mkdir()
    (folder / "study.yaml").write_text(yaml.safe_dump({
        "name": "small",
        "backbones": {"bert": {"class_path": "HuggingFace",
                               "init_args": {"source": str(backbone), "pooling": "mean",
                                             "dropout": 0.2}}},
        "datasets": {"reviews": {"class_path": "TextClassification", "init_args": {
            "train": str(data), "max_length": 32, "batch_size": 8}}},
        "techniques": {name: techniques[name] for name in only.split(",")},
        "seeds": [0], "trainer": {"max_epochs": 10, "save_every": 1e-6, **trainer},
    }, sort_keys=False))
    return folder


def steps(folder: Path) -> list[int]:
    """Steps of the states that the study's runs have on disk."""
    found = []
    for path in folder.glob(f"results/small/.work/*/state/{MANIFEST}"):
        try:
            found += [state["step"] for state in json.loads(path.read_text())["states"]]
        except (OSError, ValueError):  # just replaced, or gone
            continue
    return found


COUNTED = """
from pathlib import Path

from ftlab.techniques.full_fine_tuning import FullFineTuning


class Counted(FullFineTuning):
    \"\"\"Full fine-tuning that writes down each beginning of a fit.\"\"\"

    def on_train_start(self) -> None:
        super().on_train_start()
        with Path("fits").open("a") as file:
            file.write(Path(self.trainer.default_root_dir).name[-1])
"""


def rows(folder: Path) -> list[dict[str, str]]:
    """The study's runs, but for what a clock says."""
    with (folder / "results" / "small" / "runs.csv").open() as file:
        return [{name: value for name, value in row.items()
                 if not any(word in name for word in CLOCKED)} for row in csv.DictReader(file)]


def points(folder: Path, kind: str = "run") -> Counter[tuple[str, str, int]]:
    """How often each run has which metric of which step."""
    tracker = Tracker(f"sqlite:///{folder}/mlflow.db")
    runs = tracker._runs.search(tracker._runs.experiment("small"), f"tags.`ftlab.kind` = '{kind}'")
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len(runs) == (1 if kind == "trial" else len(rows(folder)))
    return Counter((run.data.tags["ftlab.technique"], name, point.step) for run in runs
                   for name in run.data.metrics
                   for point in tracker._client.get_metric_history(run.info.run_id, name))


def notes(folder: Path) -> list[str]:
    tracker = Tracker(f"sqlite:///{folder}/mlflow.db")
    runs = tracker._runs.search(tracker._runs.experiment("small"), "tags.`ftlab.kind` = 'run'")
    return [run.data.tags.get("ftlab.note", "") for run in runs]


def kill_on_its_way(folder: Path, number: signal.Signals, times: int, **environment: str) -> None:
    for _ in range(times):
        before = max(steps(folder), default=0)
        command = begin(folder, "run", "study.yaml", "--workers", "1", **environment)
        wait_for(lambda before=before, command=command: command.poll() is not None
                 or max(steps(folder), default=0) not in (0, before))
        if command.poll() is not None:
            break
        os.kill(command.pid, number)
        command.wait()
        wait_for(lambda: not alive(folder))


@pytest.mark.parametrize(("number", "times", "study"), [
    (signal.SIGKILL, 2, {"only": "ema"}),
    (signal.SIGUSR1, 1, {"only": "ema"}),
    (signal.SIGKILL, 1, {"only": "ema", "devices": 2, "accelerator": "cpu"}),
    pytest.param(signal.SIGKILL, 1, {"only": "full", "devices": 2, "accelerator": "cpu",
                                     "strategy": "fsdp"}, marks=pytest.mark.slow),
    pytest.param(signal.SIGKILL, 10, {}, marks=pytest.mark.slow),
])
def test_killed__and_continued(
    tmp_path: Path, tiny_bert: Path, reviews: Path, number: signal.Signals, times: int,
    study: dict[str, Any],
) -> None:
    parts = write(tmp_path / "parts", tiny_bert, reviews, **study)
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f"#!/bin/sh\necho $@ >> {tmp_path}/asked\n")
    scontrol.chmod(0o755)
    kill_on_its_way(parts, number, times, SLURM_JOB_ID="7", SLURM_PROCID="0",
                    PATH=f"{tmp_path}:{os.environ['PATH']}")
    if number == signal.SIGUSR1:
        assert (tmp_path / "asked").read_text() == "requeue 7\n"
        assert "job 7 was put back into Slurm's queue" in said(parts)
    done = begin(parts, "run", "study.yaml", "--workers", "1")
    assert done.wait() == 0, said(parts)
    whole = write(tmp_path / "whole", tiny_bert, reviews, **study)
    assert begin(whole, "run", "study.yaml", "--workers", "1").wait() == 0
    assert any("continued at step" in note for note in notes(parts))
    assert rows(parts) == rows(whole)
    counted = points(parts)
    assert set(counted.values()) == {1}
    assert counted.keys() == points(whole).keys()
    assert not list(parts.glob("results/small/.work/*"))


@pytest.mark.parametrize(("only", "strategy"), [
    ("full", "fsdp"), pytest.param("ema", "ddp", marks=pytest.mark.slow)])
def test_killed_on_two_nodes__and_continued(
    tmp_path: Path, tiny_bert: Path, reviews: Path, only: str, strategy: str
) -> None:
    """Node 0 has the states of all ranks: what the other had is lost with it."""
    folders = [write(tmp_path / name, tiny_bert, reviews, only, accelerator="cpu", nodes=2,
                     strategy=strategy) for name in ("parts", "whole")]
    parts, other = folders[0], tmp_path / "other"
    other.mkdir()
    commands = begin_on_two(parts, other)
    wait_for(lambda: commands[0].poll() is not None or max(steps(parts), default=0) > 0)
    for command in commands:
        if command.poll() is None:
            os.kill(command.pid, signal.SIGKILL)
        command.wait()
    wait_for(lambda: not alive(parts) and not alive(other))
    for folder in folders:
        for command, place in zip(begin_on_two(folder, other), (folder, other), strict=True):
            assert command.wait() == 0, said(place)
    assert any("continued at step" in note for note in notes(parts))
    assert rows(parts) == rows(folders[1])
    assert points(parts).keys() == points(folders[1]).keys()


def begin_on_two(*folders: Path) -> list[Any]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    return [begin(folder, "run", folders[0] / "study.yaml", NODE_RANK=str(number), NNODES="2",
                  MASTER_ADDR="127.0.0.1", MASTER_PORT=port) for number, folder in enumerate(folders)]


def test_trial__goes_on_with_its_second_seed(tmp_path: Path, tiny_bert: Path, reviews: Path) -> None:
    found = {}
    for name in ("whole", "parts"):
        folder = write(tmp_path / name, tiny_bert, reviews, only="full", max_epochs=4)
        (folder / "counted.py").write_text(COUNTED)
        (folder / "sweep.yaml").write_text(yaml.safe_dump({
            "study": "study.yaml", "trials": 1, "seeds": [3, 4], "pruner": None, "spaces": {"full": {"lr": {"choices": [0.002]}}}}))
        study = yaml.safe_load((folder / "study.yaml").read_text())
        study["techniques"] = {"full": {"class_path": "counted.Counted"}}
        (folder / "study.yaml").write_text(yaml.safe_dump(study))
        command = "sweep", "sweep.yaml", "--allow", "counted", "--workers", "1"
        if name == "parts":
            killed = begin(folder, *command)
            wait_for(lambda folder=folder: list(folder.glob(f"results/small/.work/*/*-seed4/state/{MANIFEST}")))
            killed.kill()
            killed.wait()
            wait_for(lambda folder=folder: not alive(folder))
        assert begin(folder, *command).wait() == 0, said(folder)
        ((trial,),) = trials(folder).values()
        found[name] = trial.values, points(folder, "trial").keys()
        assert set(points(folder, "trial").values()) == {1}
        assert (folder / "fits").read_text() == {"whole": "34", "parts": "344"}[name]
    assert found["parts"] == found["whole"]


def test_changed_data__are_refused_before_anything_runs(
    tmp_path: Path, tiny_bert: Path, reviews: Path
) -> None:
    own = tmp_path / "own.csv"
    own.write_text(reviews.read_text())
    parts = write(tmp_path / "parts", tiny_bert, own, only="ema")
    kill_on_its_way(parts, signal.SIGKILL, 1)
    own.write_text(reviews.read_text() + "a very good film,good\n")
    assert begin(parts, "run", "study.yaml", "--workers", "1").wait() == 2
    what, mend = said(parts).splitlines()[-2:]
    assert "holds states of a run with other data" in what and "seed0/state" in what
    assert "remove the folder to begin the run anew" in mend
