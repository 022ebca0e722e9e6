"""Batch norms have two values of each channel in every batch, or the run is refused."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from ftlab.backbones.task_model import TaskModel
from ftlab.data.train_batches import BatchShare, JoinedBatches, Update, leaves_one, with_shares
from ftlab.errors import InputError
from ftlab.training import batches
from ftlab.training.trainer_settings import TrainerSettings


def model(*layers: nn.Module) -> TaskModel:
    return TaskModel(nn.Sequential(*layers), [("0", ["0"])])


@pytest.mark.parametrize(("layer", "shape"), [
    (nn.BatchNorm2d(4), (1, 4, 1, 1)), (nn.BatchNorm2d(4), (1, 4, 2, 1)),
    (nn.BatchNorm1d(4), (1, 4)), (nn.BatchNorm1d(4), (1, 4, 3)),
])
def test_watched__are_the_norms_that_torch_refuses(layer: nn.Module, shape: tuple[int, ...]) -> None:
    made = model(layer)
    with batches.watched(made, 2) as single:
        made.eval().network(torch.zeros(2, *shape[1:]))
    try:
        layer.train()(torch.zeros(shape))
    except ValueError:
        assert single == {layer}
    else:
        assert not single


@pytest.mark.parametrize("layer", [nn.InstanceNorm2d(4), nn.GroupNorm(4, 4)])
def test_watched__refuses_norms_that_see_one_value(layer: nn.Module) -> None:
    made = model(layer)
    with batches.watched(made, 2):
        made.network(torch.zeros(2, 4, 2, 2))
    with pytest.raises(InputError, match="single value"), batches.watched(made, 2):
        made.network(torch.zeros(2, 4, 1, 1))


@pytest.mark.parametrize(("examples", "batch_size", "devices", "outcome"), [
    (33, 32, 1, "joined"), (33, 8, 1, "joined"), (34, 32, 1, "as it is"), (32, 32, 1, "as it is"),
    (34, 32, 2, "joined"),  # 17 a device, in batches of 16
    (33, 1, 1, "set batch_size: 2"), (33, 2, 2, "set batch_size: 4"),
    (1, 32, 1, "train on 2 examples"), (2, 32, 2, "train on 4 examples"),
])
def test_settle__joins_or_refuses(
    examples: int, batch_size: int, devices: int, outcome: str
) -> None:
    norm = nn.BatchNorm1d(4)
    made, settings = model(norm), TrainerSettings(devices=devices)
    data: Any = SimpleNamespace(splits={"train": range(examples)}, batch_size=batch_size,
                                sampling=SimpleNamespace(plans=False))
    assert batches.settle(data, made.eval(), set(), settings) == (Update(joins_last=False), [])
    if outcome in ("joined", "as it is"):
        update, notes = batches.settle(data, made.train(), {norm}, settings)
        assert any("joins the batch before" in note for note in notes) == (outcome == "joined")
    else:
        with pytest.raises(InputError, match=outcome):
            batches.settle(data, made.train(), {norm}, settings)
        # frozen, they take any batch
        update, _ = batches.settle(data, made.eval(), {norm}, settings)
    assert update.joins_last


@pytest.mark.parametrize("examples", range(3, 12))
@pytest.mark.parametrize("size", [2, 3, 4])
def test_joined__have_two_examples_at_least(examples: int, size: int) -> None:
    if not leaves_one(examples, size):
        assert examples % size != 1 or examples < size
        return
    joined = JoinedBatches(torch.utils.data.SequentialSampler(range(examples)), size)
    drawn = list(joined)
    assert len(joined) == len(drawn) == examples // size
    assert [len(batch) for batch in drawn] == [size] * (len(drawn) - 1) + [size + 1]
    assert [position for batch in drawn for position in batch] == list(range(examples))


def test_shares__are_of_their_window_and_load_no_more_than_it() -> None:
    asked: list[int] = []

    def numbered() -> Any:
        for number in range(5):
            asked.append(number)
            yield {"units": float(number)}

    found = with_shares(numbered(), 2, lambda batch: batch["units"])
    first = next(found)
    assert first["share"] == BatchShare(0.0, 1.0, 2) and asked == [0, 1]
    rest = [batch["share"] for batch in found]
    assert [share.part for share in rest] == [1.0, 2 / 5, 3 / 5, 1.0]
    assert [float(share.of(torch.tensor(6.0))) for share in rest] == pytest.approx(
        [12.0, 24 / 5, 36 / 5, 12.0])
    assert BatchShare(0.0, 0.0).part == 0
