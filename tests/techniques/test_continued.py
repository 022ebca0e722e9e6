"""Every technique goes on from a run's state as if nothing had happened."""

from pathlib import Path

import pytest
from continued import assert_continues
from matrix import (
    TECHNIQUES,
    World,
    along,
    make_technique,
    make_world,
    refusal,
    tried,
    tried_always,
)

from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings
from ftlab.training.trial import search

EPOCHS = 4
TRAINING = [name for name, cls in TECHNIQUES.items() if cls.trains]


@pytest.fixture
def world(request: pytest.FixtureRequest) -> World:
    return make_world(request.param, request.getfixturevalue)


HOLDS = {"begin_fit", "begin_epoch", "after_step", "optimizer"}


def always(name: str) -> list[str]:
    """The first world, of a technique that may hold something; of another none."""
    return tried_always(name)[:1] if make_technique(name).hooks & HOLDS else []


PAIRS = [pytest.param(name, place, marks=() if place in always(name) else pytest.mark.slow)
         for name in TRAINING for place in tried(name)]


@pytest.mark.parametrize(("name", "world"), PAIRS, indirect=["world"])
def test_continues(name: str, world: World, tmp_path: Path) -> None:
    if refusal(name, world) is not None:
        pytest.skip("refused in this world")

    def make(folder: Path) -> Run:
        backbone, data = world()
        technique = make_technique(name)
        along(data, technique.streams, technique.columns)
        settings = TrainerSettings(max_epochs=EPOCHS, gradient_clip=None)
        return Run(backbone, data, technique, settings, 7, "val/loss", folder)

    probe = make(tmp_path)
    probe.data.load()
    size = -(-len(probe.data.splits["train"]) // probe.data.batch_size)
    assert_continues(make, tmp_path, size + max(1, size // 2), act=search)
