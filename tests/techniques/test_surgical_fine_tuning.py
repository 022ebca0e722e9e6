"""One block trains: as PartialFineTuning where that is the last, and the right one if found."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from matrix import World, make_world
from safetensors.torch import load_file

from ftlab.errors import Incompatible
from ftlab.techniques.base import Technique
from ftlab.techniques.partial_fine_tuning import PartialFineTuning
from ftlab.techniques.surgical_fine_tuning import SurgicalFineTuning
from ftlab.training.execute import execute
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings

UNRENDERED = True


@pytest.fixture(params=["text_classification", "image_classification"])
def world(request: pytest.FixtureRequest) -> World:
    return make_world(request.param, request.getfixturevalue)


@pytest.fixture
def fitted(world: World, tmp_path: Path) -> Callable[[Technique], tuple[Run, dict[str, Any]]]:
    """A finished run with its delta."""
    def make(technique: Technique) -> tuple[Run, dict[str, Any]]:
        backbone, data = world()
        directory = tmp_path / str(len(list(tmp_path.iterdir())))
        directory.mkdir()
        run = Run(backbone, data, technique, TrainerSettings(max_epochs=2), 7, "val/loss", directory)
        execute(run, lambda event: None)
        return run, load_file(directory / "checkpoint" / "delta.safetensors")

    return make


def assert_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_last_block__is_partial_fine_tuning(fitted: Callable) -> None:
    assert_equal(fitted(SurgicalFineTuning(-1, lr=1e-2))[1],
                 fitted(PartialFineTuning(1, lr=1e-2))[1])


def test_found_block__is_the_one_of_a_loop_and_trains_as_if_named(
    fitted: Callable, world: World
) -> None:
    run, delta = fitted(SurgicalFineTuning(batches=2, lr=1e-2))
    backbone, data = world()
    data.load()
    data.connect(backbone, 7)
    torch.manual_seed(7)
    model = backbone.build(data.task).eval()
    for batch in islice(data.train_dataloader(), 2):
        data.task.loss(model(batch), batch).backward()
    ratios = []
    for block in model.blocks:
        used = [p for p in block.parameters() if p.grad is not None]  # not an encoder's pooler
        gradient = sum(float(p.grad.square().sum()) for p in used)
        ratios.append(gradient / sum(float(p.detach().square().sum()) for p in used))
    best = ratios.index(max(ratios))
    parts = [*model.blocks, model.head]
    held = {next(i for i, part in enumerate(parts) if part.holds(name))
            for name in run.technique.trained}
    assert held == {best, len(model.blocks)}
    (note,) = run.technique.notes
    assert note.startswith(f"SurgicalFineTuning trains block {best}, {model.blocks[best].name}: ")
    assert_equal(delta, fitted(SurgicalFineTuning(best, lr=1e-2))[1])


def test_block__that_there_is_not(world: World) -> None:
    backbone, data = world()
    data.load()
    data.connect(backbone, 7)
    with pytest.raises(Incompatible, match=r"\(block=9\): the model has \d blocks") as caught:
        SurgicalFineTuning(9).bind(backbone.build(data.task), data.task)
    assert "choose one of: 0 " in caught.value.mend
    with pytest.raises(ValueError, match="batches must be at least 1, got 0"):
        SurgicalFineTuning(batches=0)
