"""Fits counted in steps or seconds: when they are validated, when they end, and what they train."""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from matrix import make_world

from ftlab.errors import InputError
from ftlab.sweeps.trial_job import LONGEST, most_validations
from ftlab.techniques.base import Optimization, Technique
from ftlab.techniques.bitfit import BitFit
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.techniques.jtt import JTT
from ftlab.techniques.swa import SWA
from ftlab.training import by_steps
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings
from ftlab.training.trial import search

BATCHES = 6  # of an epoch
Event = dict[str, Any]


@pytest.fixture
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    numbers = itertools.count()

    def make_run(technique: Technique | None = None, **settings: Any) -> Run:
        backbone, data = make_world("text_classification", request.getfixturevalue)()
        data.load()
        data.batch_size = math.ceil(len(data.splits["train"]) / BATCHES)
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        return Run(backbone, data, technique or BitFit(lr=1e-2), TrainerSettings(**settings), 3,
                   "val/loss", folder, plain=True)

    return make_run


def validations(run: Run) -> tuple[list[tuple[int, float, int]], list[Event]]:
    """Step, epochs and number of each."""
    events: list[Event] = []
    run.data.load()
    search(run, events.append)
    return [(event["step"], event["metrics"]["epoch"], event["validation"]) for event in events
            if event["event"] == "metrics" and "epoch" in event["metrics"]], events


@pytest.mark.parametrize(("settings", "steps"), [
    ({"max_epochs": 2}, [6, 12]),
    ({"max_steps": 8}, [6, 8]),
    ({"max_steps": 12}, [6, 12]),
    ({"max_epochs": 2, "validate_every": 4}, [4, 8, 12]),
    ({"max_epochs": 2, "validate_every": 5}, [5, 10, 12]),
    ({"max_epochs": 2, "validate_every": 1 / 3}, [2, 4, 6, 8, 10, 12]),
    ({"max_epochs": 2, "validate_every": 0.4}, [3, 5, 9, 11, 12]),
    ({"max_steps": 7, "validate_every": 3}, [3, 6, 7]),
    ({"max_steps": 5, "validate_every": 1.0}, [5]),
    ({"max_epochs": 2, "validate_every": 2, "accumulate": 4}, [2, 4]),
    ({"max_steps": 3, "accumulate": 4}, [2, 3]),
    ({"max_steps": 3, "validate_every": 1, "accumulate": 4}, [1, 2, 3]),
    ({"max_epochs": 50, "validate_every": 1, "patience": 2}, None),
])
def test_validations__are_where_the_settings_say(make, settings, steps):
    found, _ = validations(make(BitFit(lr=1e-2 if steps else 5.0), **settings))
    assert [number for _, _, number in found] == list(range(1, len(found) + 1))
    if steps is None:  # a rate at which nothing gets better
        assert len(found) < 30
        return
    assert [step for step, _, _ in found] == steps
    per = math.ceil(BATCHES / settings.get("accumulate", 1))
    for step, epochs, _ in found:
        whole, rest = divmod(step, per)
        assert epochs == pytest.approx(whole + rest * settings.get("accumulate", 1) / BATCHES)


def test_validations__change_nothing_of_the_training(make):
    plain, often = make(FullFineTuning(lr=1e-2), max_epochs=2), make(
        FullFineTuning(lr=1e-2), max_steps=12, validate_every=1)
    for run in (plain, often):
        run.backbone.dropout = 0.3
        validations(run)
    for one, other in zip(plain.technique.model.parameters(),
                          often.technique.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_schedule__ends_with_the_last_step(make):
    optim = Optimization(schedule="linear", warmup=0.25)
    _, events = validations(make(BitFit(lr=1e-2, optim=optim), max_steps=8, log_every=1))
    rates = {event["step"]: event["metrics"]["train/lr"] for event in events
             if event["event"] == "metrics" and "train/lr" in event["metrics"]}
    assert rates == {step + 1: pytest.approx(1e-2 * optim.factor(step, 8)) for step in range(8)}


def test_max_seconds__end_the_fit_after_their_step(make, monkeypatch):
    ticks: Iterator[int] = itertools.count()
    clock = SimpleNamespace(monotonic=lambda: float(next(ticks)))  # a second a look
    monkeypatch.setattr(by_steps, "time", clock)
    found, events = validations(make(max_epochs=50, max_seconds=9.0))
    assert [(step, epochs) for step, epochs, _ in found] == [(6, 1), (9, 1.5)]
    assert "the fit ended after max_seconds: 9 s, at step 9" in [
        event["text"] for event in events if event["event"] == "note"]


@pytest.mark.parametrize(("technique", "settings", "what", "mend"), [
    (JTT(BitFit(), first_epochs=1), {"max_epochs": 3, "validate_every": 2},
     "JTT has no finished model within an epoch, and validate_every: 2", "validate_every: null"),
    (JTT(BitFit(), first_epochs=1), {"max_epochs": 3, "max_seconds": 2.0},
     "JTT has no finished model within an epoch, and max_seconds: 2.0", "max_seconds: null"),
    (JTT(BitFit(), first_epochs=1), {"max_steps": 13},
     "has 6 steps, and max_steps: 13 ends in one", "set max_steps: 18"),
    (SWA(BitFit()), {"max_seconds": 2.0}, "and max_seconds may end the fit", "max_seconds: null"),
    (SWA(BitFit()), {"patience": 2}, "and patience may end the fit", "patience: null"),
])
def test_refused__where_there_is_no_finished_model(make, technique, settings, what, mend):
    with pytest.raises(InputError) as caught:
        validations(make(technique, **settings))
    assert what in caught.value.what and mend in caught.value.mend


def test_whole_epochs__are_as_good_as_epochs(make):
    found, _ = validations(make(JTT(BitFit(), first_epochs=1), max_steps=18, validate_every=1.0))
    assert [step for step, _, _ in found] == [6, 12, 18]


@pytest.mark.parametrize(("trainer", "most"), [
    ({"max_epochs": 3}, 3),
    ({"max_epochs": 3, "min_steps": 40}, 40),
    ({"max_epochs": 3, "validate_every": 0.25}, 12),
    ({"max_steps": 100, "validate_every": 30}, 4),
    ({"max_epochs": 3, "validate_every": 30}, LONGEST),
])
def test_trials__number_the_validations_of_their_seeds(trainer, most):
    empty = {"max_epochs": 3, "min_steps": None, "max_steps": None, "validate_every": None}
    assert most_validations({**empty, **trainer}) == most
