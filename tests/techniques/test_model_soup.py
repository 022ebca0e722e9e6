"""Soups of models: members that are fits of their own, and means held to outside formulas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from matrix import make_world
from safetensors.torch import load_file
from steps import Bench, assert_equal, state
from torch import Tensor
from torch.optim.swa_utils import update_bn

from ftlab.errors import Incompatible, InputError
from ftlab.techniques.base import Optimization, Technique
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.techniques.l2sp import L2SP
from ftlab.techniques.lora import LoRA
from ftlab.techniques.model_soup import ModelSoup
from ftlab.techniques.swa import SWA
from ftlab.training.batches import check_update
from ftlab.training.execute import execute
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings

CONSTANT = Optimization(schedule="constant", warmup=0.0)


@pytest.fixture(scope="module")
def images(request: pytest.FixtureRequest) -> Bench:
    """A network with batch norms."""
    return Bench(make_world("image_classification", request.getfixturevalue))


def soup(images: Bench, how: Any = "uniform", optimizer: str = "adamw") -> ModelSoup:
    """Two members of two steps each."""
    schedule: Any = Optimization(optimizer, schedule="constant", warmup=0.0)
    one = images.bound(ModelSoup(FullFineTuning(lr=1e-2, optim=schedule), 2, how))
    assert isinstance(one, ModelSoup)
    images.fit(one, 4)
    return one


def floats(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in tensors.items() if value.is_floating_point()}


@pytest.mark.parametrize("optimizer", ["adamw", "schedule_free", "muon"])
def test_members__are_fits_of_their_own(images: Bench, optimizer: str) -> None:
    # the batches of two steps are the same for both, and so are the fits
    one = soup(images, optimizer=optimizer)
    alone = images.bound(FullFineTuning(lr=1e-2, optim=one.optim))
    made: Any = None

    def optimizer_of(groups: Any) -> Any:
        nonlocal made
        made = Technique.optimizer(alone, groups)
        return made

    alone.optimizer = optimizer_of  # type: ignore[method-assign]  # to look at it
    images.fit(alone, 2)
    getattr(made, "eval", lambda: None)()
    trained = floats(state(alone.model))
    assert len(one.kept) == 2
    for member in one.kept:
        assert_equal(member, {name: trained[name] for name in member})


def test_uniform__is_the_mean(images: Bench) -> None:
    one = soup(images)
    one.kept = [one.kept[0], {name: value + 1 for name, value in one.kept[1].items()}]
    model = one.model.eval()
    with torch.no_grad():
        one.settle(model, images.data, lambda: 0.0)
    found = state(model)
    for name, _ in model.named_parameters():
        torch.testing.assert_close(found[name], one.kept[0][name] + 0.5)
    update_bn(images.data.train_dataloader(), model)  # torch's own pass over the training data
    for name, value in state(model).items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("scores", "wanted"), [
    ([1, 3, 2, 3, 3], [1, 2, 0]),  # none is worse
    ([1, 3, 2, 2.9, 3], [1, 0]),   # the second is left out
    ([3, 1, 2, 2, 2], [0]),
])
def test_greedy__takes_what_is_not_worse(images: Bench, scores: list[float],
                                         wanted: list[int]) -> None:
    one = images.bound(ModelSoup(FullFineTuning(lr=1e-2), 3))
    assert isinstance(one, ModelSoup)
    images.fit(one, 3)
    one.kept = [{name: value + shift**2 for name, value in one.kept[0].items()}
                for shift in range(3)]
    given = iter(scores)
    model = one.model.eval()
    with torch.no_grad():
        one.settle(model, images.data, lambda: next(given))
    assert next(given, None) is None
    found = state(model)
    for name, _ in model.named_parameters():
        torch.testing.assert_close(found[name], sum(one.kept[m][name] for m in wanted) / len(wanted))
    if len(wanted) == 1:  # a member is itself, its statistics too
        assert_equal({name: found[name] for name in one.kept[0]}, one.kept[wanted[0]])


def test_rates__of_members_and_their_schedules() -> None:
    one = ModelSoup(FullFineTuning(optim=Optimization(schedule="linear", warmup=0.0)), 2,
                    rates=[1.0, 0.5])
    (factor,) = one.lr_factors([{}], 12, 3)  # of two epochs, and of one
    assert [factor(step) for step in (0, 4, 8, 10)] == [1.0, 0.5, 0.5, 0.25]


def run(world: Any, technique: Technique, folder: Path, **settings: Any) -> Run:
    backbone, data = world()
    folder.mkdir()
    return Run(backbone, data, technique, TrainerSettings(max_epochs=2, **settings), 3, "val/loss",
               folder)


def test_run__of_one_member_is_the_technique_bit_for_bit(request: Any, tmp_path: Path) -> None:
    world = make_world("image_classification", request.getfixturevalue)
    plain = run(world, FullFineTuning(lr=1e-2), tmp_path / "plain")
    single = run(world, ModelSoup(FullFineTuning(lr=1e-2), 1), tmp_path / "single")
    some, others = (execute(each, lambda event: None) for each in (plain, single))
    assert some["test/loss"] == others["test/loss"]
    assert_equal(*(load_file(each.directory / "checkpoint" / "delta.safetensors")
                   for each in (plain, single)))


def test_run__keeps_the_mean_of_what_it_trained(request: Any, tmp_path: Path) -> None:
    world = make_world("image_classification", request.getfixturevalue)
    one = run(world, ModelSoup(FullFineTuning(lr=1e-2, optim=CONSTANT), 2, "uniform"),
              tmp_path / "soup")
    events: list[dict[str, Any]] = []
    execute(one, events.append)
    epochs = [event["metrics"] for event in events if "epoch" in event.get("metrics", ())]
    assert [metrics.get("train/fit") for metrics in epochs] == [None, 2]  # each a curve of its own
    assert isinstance(one.technique, ModelSoup)
    kept = load_file(one.directory / "checkpoint" / "delta.safetensors")
    first, second = one.technique.kept
    names = {name for name, _ in one.technique.model.named_parameters()}
    assert any(not torch.equal(first[name], second[name]) for name in names)  # another order
    for name in names:
        torch.testing.assert_close(kept[name], (first[name] + second[name]) / 2)


def test_soup__refuses() -> None:
    full = FullFineTuning()
    with pytest.raises(ValueError, match="members must be at least 1, got 0"):
        ModelSoup(full, 0)
    with pytest.raises(ValueError, match="how is greedy or uniform, got 'best'"):
        ModelSoup(full, how="best")  # type: ignore[arg-type]  # that is the point
    with pytest.raises(ValueError, match="rates must be 3 numbers above 0"):
        ModelSoup(full, rates=[1.0])
    with pytest.raises(ValueError, match="ModelSoup makes no sense around LoRA, which has its own merge"):
        ModelSoup(LoRA())
    with pytest.raises(Incompatible, match="wants an epoch for each, and there are 2"):
        ModelSoup(full).starts(2)


@pytest.mark.parametrize("make", [ModelSoup, SWA])
def test_fit_that_might_end_early_is_refused(make: Any, images: Bench) -> None:
    settings = TrainerSettings(max_epochs=3, patience=1)
    with pytest.raises(InputError, match="weights of its last steps, and patience may end the fit"):
        check_update(L2SP(make(FullFineTuning())), images.data, settings)
    check_update(make(FullFineTuning()), images.data, TrainerSettings(max_epochs=3))
    with pytest.raises(Incompatible, match="wants an epoch for each, and there are 2"):
        check_update(ModelSoup(FullFineTuning()), images.data, TrainerSettings(max_epochs=2))


def test_members_of_unequal_length_are_said(images: Bench) -> None:
    one = images.bound(ModelSoup(FullFineTuning()))
    one.begin_epoch(one.model, 0, 4)
    assert one.notes == ["ModelSoup: its members have 2, 1 and 1 epochs; max_epochs: 6 gives each as many"]
