"""A run that ends early and is continued from its state gives what one does that was left alone."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from continued import assert_continues, killed_at, points, run_to_end
from lightning.pytorch.utilities.exceptions import SIGTERMException
from matrix import make_world

from ftlab.errors import GuardFailed, InputError
from ftlab.techniques.base import Optimization, Technique
from ftlab.techniques.bitfit import BitFit
from ftlab.techniques.ema import EMA
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.techniques.jtt import JTT
from ftlab.techniques.lora import LoRA
from ftlab.training import run_state
from ftlab.training.object_state import NotStorable, capture, restore
from ftlab.training.run import Run, Stage
from ftlab.training.run_state import RunState
from ftlab.training.state_files import read_manifest
from ftlab.training.trainer_settings import TrainerSettings
from ftlab.training.trial import search


@pytest.fixture
def make(request: pytest.FixtureRequest) -> Any:
    world = make_world("text_classification", request.getfixturevalue)

    def made(technique: Any = lambda: FullFineTuning(lr=1e-2), data: Any = None,
             before: Any = tuple, **settings: Any) -> Any:
        def run(folder: Path) -> Run:
            backbone, texts = world()
            backbone.dropout = 0.2
            for name, value in (data or {}).items():
                setattr(texts, name, value)
            return Run(backbone, texts, technique(), TrainerSettings(
                **{"max_epochs": 2, "log_every": 2} | settings), 3, "val/loss", folder,
                before=before())
        return run

    return made


@pytest.mark.parametrize("step", [1, 7, 11, pytest.param(10, marks=pytest.mark.slow),
                                  pytest.param(12, marks=pytest.mark.slow)])
def test_continues__within_an_epoch_and_at_its_ends(make, tmp_path, step):  # of 11 steps
    assert_continues(make(), tmp_path, step)


@pytest.mark.parametrize(("technique", "settings", "steps"), [
    (lambda: EMA(LoRA(lr=1e-2), decay=0.9), {"accumulate": 3}, (2, 5)),
    (lambda: FullFineTuning(lr=1e-2), {"max_steps": 15, "validate_every": 4}, (4, 9, 13)),
    (lambda: JTT(BitFit(lr=1e-2), first_epochs=1), {"max_epochs": 3}, (5, 25)),
    (lambda: FullFineTuning(lr=1e-2, optim=Optimization("schedule_free", schedule="constant")), {}, (7,)),
    (lambda: BitFit(lr=1e-2), {"patience": 1, "max_epochs": 9, "gradient_clip": 0.1}, (13,)),
])
def test_continues__other_loops(make, tmp_path, technique, settings, steps):
    assert_continues(make(technique, **settings), tmp_path, *steps, act=search)


def test_continues__with_processes_that_load(make, tmp_path):
    assert_continues(make(data={"workers": 1}), tmp_path, 5, 16, act=search)


def test_continues__within_a_stage(make, tmp_path, monkeypatch):
    monkeypatch.setattr("ftlab.training.stages.cache_folder.may_add", lambda: False)
    before = lambda: [Stage(BitFit(lr=1e-2), TrainerSettings(max_epochs=2))]
    run = make(before=before)
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    _, events, weights = run_to_end(run(tmp_path / "whole"), search)
    killed_at(run(tmp_path / "parts"), 15, search)
    assert (tmp_path / "parts" / "before1" / "state").exists()
    _, rest, continued = run_to_end(run(tmp_path / "parts"), search)
    assert any("continued at step 15" in event.get("text", "") for event in rest)
    assert points(events) == points(rest)
    assert all(torch.equal(tensor, continued[name]) for name, tensor in weights.items())


def test_continues__after_stages_that_are_not_trained_again(make, tmp_path, monkeypatch):
    """Where no cache keeps them; the second begins with what the first has learned."""
    monkeypatch.setattr("ftlab.training.stages.cache_folder.may_add", lambda: False)
    before = lambda: [Stage(FullFineTuning(lr=1e-2), TrainerSettings(max_epochs=1), carry="all"),
                      Stage(BitFit(lr=1e-2), TrainerSettings(max_epochs=1))]
    updates: list[str] = []

    def counted(self: Any, *args: Any) -> Any:
        updates.append(self.run.directory.name)
        return begun(self, *args)

    begun = RunState.on_train_batch_start
    monkeypatch.setattr(RunState, "on_train_batch_start", counted)
    assert_continues(make(before=before), tmp_path, 13)
    whole = ["before1"] * 11 + ["before2"] * 11 + ["whole"] * 22
    parts = ["before1"] * 11 + ["before2"] * 11 + ["parts"] * (14 + 9)
    assert updates == whole + parts
    assert {path.name for path in (tmp_path / "parts").iterdir()} == {
        path.name for path in (tmp_path / "whole").iterdir()}
    assert not list(tmp_path.glob("*/before*"))


def test_stage_that_ended__is_refused_where_its_data_are_others(make, tmp_path, monkeypatch):
    monkeypatch.setattr("ftlab.training.stages.cache_folder.may_add", lambda: False)
    run = make(before=lambda: [Stage(BitFit(lr=1e-2), TrainerSettings(max_epochs=1))])
    killed_at(run(tmp_path), 13, search)
    again = run(tmp_path)
    again.data.split = again.data.split.__class__(seed=5)
    with pytest.raises(InputError, match="before1/ended/state holds states of a run with other data"):
        run_to_end(again, search)


def test_two_states__are_kept_and_a_torn_one_is_left_aside(make, tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    _, events, weights = run_to_end(make()(tmp_path / "whole"), search)
    parts = tmp_path / "parts"
    for step in (3, 5, 8):
        killed_at(make()(parts), step, search)
    first, last = read_manifest(parts / "state")
    assert (first["step"], last["step"]) == (5, 8)
    assert {path.name for path in (parts / "state").iterdir()} == {
        "states.json", *first["files"], *last["files"]}
    torn = parts / "state" / next(iter(last["files"]))
    torn.write_bytes(torn.read_bytes()[:-50])
    _, rest, continued = run_to_end(make()(parts), search)
    notes = [event["text"] for event in rest if event["event"] == "note"]
    assert f"the state at step 8 is damaged ({torn.name}), and left aside" in notes
    assert any(note.startswith("continued at step 5,") for note in notes)
    assert points(events)[-20:] == points(rest)[-20:]
    assert all(torch.equal(tensor, continued[name]) for name, tensor in weights.items())


def test_best_epoch__is_the_one_that_the_state_knew(make, tmp_path):
    """What was validated after the state, and is lost, leaves nothing behind."""
    run = make(max_epochs=3)
    (tmp_path / "parts").mkdir()
    killed_at(run(tmp_path / "parts"), 15)
    kept = (tmp_path / "parts" / "checkpoint" / "manifest.json").read_text()
    for path in (tmp_path / "parts" / "checkpoint").iterdir():  # a later, lost validation was better
        os.replace(_written(tmp_path / "lost", "of a lost epoch"), path)
    again = run(tmp_path / "parts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunState, "_due", lambda self, trainer, batch: _stop())
        with pytest.raises(InterruptedError):
            run_to_end(again)
    assert (tmp_path / "parts" / "checkpoint" / "manifest.json").read_text() == kept


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def _stop() -> bool:
    raise InterruptedError


@pytest.mark.parametrize(("change", "named"), [
    (lambda run: run.data.__dict__.update(split=run.data.split.__class__(seed=5)), "data"),
    (lambda run: run.backbone.__dict__.update(pooling="first") or setattr(run, "seed", 4),
     "weights before training"),
    (lambda run: setattr(run, "record", {"technique": "another"}), "settings"),
])
def test_refused__what_is_of_another_run(make, tmp_path, change, named):
    killed_at(make()(tmp_path), 3, search)
    run = make()(tmp_path)
    change(run)
    with pytest.raises(InputError, match=f"state holds states of a run with other {named}"):
        run_to_end(run, search)


def test_refused__other_code_and_other_libraries(make, tmp_path, monkeypatch):
    killed_at(make()(tmp_path), 3, search)
    with monkeypatch.context() as patch:
        patch.setattr("ftlab.training.state_files.source_of", lambda technique: "edited")
        with pytest.raises(InputError, match="with other code of the technique") as caught:
            run_to_end(make()(tmp_path), search)
        assert "remove the folder to begin the run anew" in caught.value.mend
    monkeypatch.setattr("ftlab.training.kept_tensors.versions", lambda: ["1.0", "2.0"])
    with pytest.raises(InputError, match=r"versions of libraries \(.*, here 1.0, 2.0\)"):
        run_to_end(make()(tmp_path), search)


def test_full_disk__costs_the_state_alone(make, tmp_path, monkeypatch):
    run = make(save_every=1e-9)(tmp_path)

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("ftlab.training.state_files.torch.save", full)
    _, events, _ = run_to_end(run, search)
    notes = [event["text"] for event in events if event["event"] == "note"]
    assert any(note.startswith("the state at step") and "No space left" in note for note in notes)
    assert not (tmp_path / "state").exists()


def test_sigterm__writes_a_state_first(make, tmp_path):
    run = make()(tmp_path)
    seen: list[int] = []

    def signalled(self: Any, trainer: Any, *args: Any) -> None:
        seen.append(trainer.global_step)
        if trainer.global_step == 4:
            trainer._signal_connector.received_sigterm = True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunState, "on_train_batch_end", signalled)
        with pytest.raises(SIGTERMException):
            run_to_end(run, search)
    assert [state["step"] for state in read_manifest(tmp_path / "state")] == [4]
    _, rest, _ = run_to_end(make()(tmp_path), search)
    assert any(event.get("text", "").startswith("continued at step 4,") for event in rest)


def test_failed_guard__leaves_nothing_to_continue(make, tmp_path, monkeypatch):
    killed_at(make()(tmp_path), 3)

    def wrong(*args: Any) -> None:
        raise GuardFailed("wrong")

    monkeypatch.setattr("ftlab.training.callbacks.BestEpoch.judge", wrong)
    with pytest.raises(GuardFailed):
        run_to_end(make()(tmp_path))
    assert not (tmp_path / "state").exists()


class Held(BitFit):
    """Holds of all kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = [1, torch.zeros(2)]
        self.again = {"same": self.shared, 3: (torch.ones(1), {4, 5})}
        self.generator = torch.Generator().manual_seed(1)
        self.range = range(3)


@pytest.mark.parametrize("module", [Held.__module__, "own"])  # a user's, of one file
def test_objects__come_back_with_what_they_share(monkeypatch, module):
    monkeypatch.setattr(Held, "__module__", module)
    one, other = Held(), Held()
    shared = other.shared
    one.shared[0], one.range = 7, range(2, 9)
    one.shared[1] += 3
    drawn = torch.rand(2, generator=one.generator)
    restore(other, capture(one))
    assert other.shared is shared is other.again["same"]
    assert other.shared[0] == 7 and other.shared[1].tolist() == [3, 3]
    assert other.again[3][1] == {4, 5} and other.range == range(2, 9)
    assert torch.equal(torch.rand(2, generator=other.generator), torch.rand(2, generator=one.generator))
    assert not torch.equal(torch.rand(2, generator=other.generator), drawn)


def test_objects__that_are_no_data_are_named():
    held = Held()
    held.file = (line for line in "a")
    with pytest.raises(NotStorable, match=r"Held.file: a builtins.generator"):
        capture(held)


def test_states__cost_next_to_nothing_of_the_time(make, tmp_path, monkeypatch):
    """A disk on which a state takes a second gets one in fifty."""
    clock = iter(range(10**9))
    monkeypatch.setattr(run_state.time, "monotonic", lambda: float(next(clock)))
    written: list[Technique] = []
    monkeypatch.setattr(run_state.StateFiles, "write", lambda *args: written.append(args))
    run_to_end(make(max_epochs=20, save_every=1e-9)(tmp_path), search)
    assert 1 <= len(written) <= 12
