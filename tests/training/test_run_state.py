"""A run that ends early and is continued from its state gives what one does that was left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from continued import assert_continues
from matrix import make_world

from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings


@pytest.fixture
def make(request: pytest.FixtureRequest) -> Any:
    world = make_world("text_classification", request.getfixturevalue)

    def made(technique: Any = None, **settings: Any) -> Any:
        def run(folder: Path) -> Run:
            backbone, data = world()
            backbone.dropout = 0.2
            return Run(backbone, data, (technique or FullFineTuning)(lr=1e-2), TrainerSettings(
                **{"max_epochs": 2, "log_every": 2} | settings), 3, "val/loss", folder)
        return run

    return made


@pytest.mark.parametrize("step", range(1, 14))
def test_continues__wherever_it_ended(make, tmp_path, step):
    assert_continues(make(), tmp_path, step)
