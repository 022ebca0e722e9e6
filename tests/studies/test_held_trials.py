"""What a short trial has read, the server reads once for those that follow; results are the same."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ftlab.backbones import held_network
from ftlab.data.text import TextClassification
from ftlab.studies import held_trials
from ftlab.studies.engine import SPECIFICATION, MachineShare
from ftlab.studies.held_trials import HeldTrials
from ftlab.studies.local_engine import LocalEngine
from ftlab.studies.study import load_study
from ftlab.sweeps.sweep import load_sweep

UNRENDERED = True
Write = Callable[..., Path]


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    made = LocalEngine([MachineShare(1)])
    yield made
    made.close()


@pytest.fixture
def texts(reviews: Path, tmp_path: Path) -> Path:
    """A data set of this test alone."""
    shutil.copy(reviews, tmp_path / "texts.csv")
    return tmp_path / "texts.csv"


@pytest.fixture
def specify(write: Write, texts: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes a trial's folder; keyword arguments are added to its specification."""
    study = load_study(write(
        datasets={"texts": {"class_path": "TextClassification", "init_args": {
            "train": str(texts), "max_length": 32, "batch_size": 8}}},
        techniques={"lora": {"class_path": "LoRA"}}, select_by="val/loss",
        trainer={"max_epochs": 1, "accelerator": "cpu"}))

    def make(name: str, **changes: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / SPECIFICATION).write_text(json.dumps(
            {**study.cells[0].config, "seed": 0, "search": True, **changes}))
        return folder

    return make


def last(engine: LocalEngine, folder: Path) -> dict[str, Any]:
    """The event before the run's end."""
    engine.start(folder)
    events: list[dict[str, Any]] = []
    while not events or events[-1]["event"] != "exit":
        events += [event for _, event in engine.events(0.1)]
    return events[-2]


def measured(event: dict[str, Any]) -> dict[str, float]:
    """A trial's results that are no times or sizes."""
    assert event["event"] == "done", event
    return {name: value for name, value in event["metrics"].items()
            if not name.startswith("cost/") or name.endswith("_parameters")}


def test_a_third_trial_reads_nothing_and_gives_the_same(
        engine: LocalEngine, specify: Callable[..., Path], texts: Path) -> None:
    alone = {seed: measured(last(engine, specify(f"alone{seed}", apart=True, seed=seed)))
             for seed in (0, 1)}
    assert alone[0] != alone[1]
    for number in range(2):  # reads; is forked from what the server then reads
        assert measured(last(engine, specify(f"first{number}"))) == alone[0]
    texts.unlink()
    for seed in (1, 0):
        assert measured(last(engine, specify(f"held{seed}", seed=seed))) == alone[seed]
    for kind, changes in {"alone": {"apart": True}, "plain": {"plain": True},
                          "whole": {"search": False}}.items():
        event = last(engine, specify(kind, **changes))
        assert event["event"] == "failed", kind
        assert "no such file" in event["reason"]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders of the trials for which something was read."""
    folders: list[Path] = []

    def read(directory: Path) -> str:
        folders.append(directory)
        return f"from {directory.name}"

    monkeypatch.setattr(held_trials, "_read", read)
    monkeypatch.setattr(held_trials.gc, "freeze", lambda: None)
    return folders


def test_only_what_ended_well_and_soon_is_held(
        specify: Callable[..., Path], reads: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    trials, folder = HeldTrials(), str(specify("trial"))
    for code, limit in ((1, 10.0), (-9, 10.0), (0, 0.0)):
        monkeypatch.setattr(held_trials, "SOON", limit)
        assert trials.started(folder, 1) is None
        trials.ended(folder, code)
    assert not reads
    monkeypatch.setattr(held_trials, "SOON", 10.0)
    assert trials.started(folder, 1) is None
    trials.ended(folder, 0)
    for name in ("second", "third"):
        assert trials.started(str(specify(name)), 1) == "from second"
    assert [path.name for path in reads] == ["second"]


def test_what_is_held_is_bounded(
        specify: Callable[..., Path], reads: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_trials, "MOST", 2)
    trials = HeldTrials()
    held = []
    for number in range(3):
        folder = str(specify(f"trial{number}", backbone=f"backbone {number}"))
        trials.started(folder, 1)
        trials.ended(folder, 0)
        held.append(trials.started(folder, 1))
    assert held == ["from trial0", "from trial1", None]


def test_what_cannot_be_read_is_not_tried_again(
        specify: Callable[..., Path], reads: list[Path], monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str]) -> None:
    def fail(directory: Path) -> None:
        os.write(1, b"of no use to anybody")
        reads.append(directory)
        raise OSError("the disk is gone")

    monkeypatch.setattr(held_trials, "_read", fail)
    trials, folder = HeldTrials(), str(specify("trial"))
    for _ in range(3):
        assert trials.started(folder, 1) is None
        trials.ended(folder, 0)
    assert len(reads) == 1
    os.write(1, b"said")
    assert capfd.readouterr() == ("said", "")


def test_data_that_draw_from_a_runs_generators_are_not_held(
        specify: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_network, "_held", {})
    folder = specify("trial")
    assert held_trials._read(folder) is not None
    load = TextClassification.load

    def drawing(data: TextClassification) -> None:
        torch.rand(1)
        load(data)

    monkeypatch.setattr(TextClassification, "load", drawing)
    assert held_trials._read(folder) is None


def test_choices_of_threads_that_cannot_be_restored_are_not_touched(
        specify: Callable[..., Path], reads: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    trials, folder = HeldTrials(), str(specify("trial"))
    for _ in range(2):
        trials.started(folder, None)
        trials.ended(folder, 0)
    assert not reads


def test_trials_that_search_for_little_memory_share_none(write: Write, tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    for objective, apart in (("val/loss", False), ("cost/peak_memory_bytes", True)):
        path.write_text(f"study: {write()}\ntrials: 2\nobjective: [val/accuracy, {objective}]\n")
        sweep = load_sweep(path)
        assert sweep.config(sweep.study.cells[0], {}, 0).get("apart", False) is apart
