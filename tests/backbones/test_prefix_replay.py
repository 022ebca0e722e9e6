"""A frozen prefix, played back, gives what it gives when computed: outputs and gradients."""

from collections.abc import Callable

import pytest
import torch
from families import IMAGE, TEXT
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ftlab.backbones.forward_trace import NotReplayable
from ftlab.backbones.prefix_replay import FrozenPrefix
from ftlab.backbones.task_model import TaskModel
from ftlab.backbones.timm import Timm
from ftlab.backbones.torchvision import Torchvision
from ftlab.tasks.classification import Classification
from ftlab.training.unused_parameters import retire_unused

UNRENDERED = True
UNPLAYABLE = {("t5", "last"): "no row an example"}  # its blocks hand position biases on
TORCHVISION = ["resnet18", "mobilenet_v2", "densenet121", "vgg11", "swin_t", "squeezenet1_0"]


@pytest.fixture
def classes() -> Classification:
    task = Classification()
    task.fit(["a", "b", "c"])
    return task


def freeze(model: TaskModel, training: str) -> None:
    """All but the head, the last block, or the second half."""
    model.requires_grad_(False)
    model.head.requires_grad_(True)
    last = {"head": 0, "last": 1, "half": len(model.blocks) // 2}[training]
    for block in model.blocks[len(model.blocks) - last :]:
        block.requires_grad_(True)


def gradients(model: TaskModel, batch: dict) -> tuple[torch.Tensor, dict[str, torch.Tensor], int]:
    """Outputs, gradients, and floating-point operations of both passes."""
    model.zero_grad(set_to_none=True)
    with FlopCounterMode(display=False) as counter:
        outputs = model(batch)
        outputs.square().sum().backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return outputs.detach(), found, counter.get_total_flops()


class Recorded:
    """Gives back what was recorded for the one batch, and noise where its padding was."""

    def __init__(self, handed: list[Tensor], masks: list[Tensor | None]) -> None:
        self.handed = [each if mask is None else torch.where(
            mask.view(*mask.shape, *[1] * (each.ndim - 2)), each, torch.randn_like(each))
            for each, mask in zip(handed, masks, strict=True)]

    def rows(self, index: Tensor, masks: list[Tensor | None]) -> list[Tensor]:
        return self.handed


def check(model: TaskModel, batch: dict) -> None:
    prefix = FrozenPrefix(model, batch)
    with torch.no_grad():
        handed, masks = prefix.record(batch)
    assert all(len(rows) == len(batch["index"]) for rows in handed)
    plain, expected, cost = gradients(model, batch)
    model.playing = prefix.playing
    played, found, cheaper = gradients(model, {**batch, "prefix": Recorded(handed, masks)})
    torch.testing.assert_close(played, plain)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-5)
    assert cheaper < cost
    again, _, full = gradients(model, batch)  # nothing of it stays
    assert torch.equal(again, plain) and full == cost


@pytest.mark.parametrize("training", ["head", "last", "half"])
@pytest.mark.parametrize("family", [f for f in (*TEXT, *IMAGE) if f != "bert_mlm"])
def test_prefix__of_every_family(
    family: str, training: str, backbone: Callable, batch_of: Callable, classes: Classification
) -> None:
    batch = {"index": torch.arange(4), **batch_of(family)}
    model = backbone(family).build(classes).eval()
    retire_unused(model, batch)
    freeze(model, training)
    if (family, training) in UNPLAYABLE:
        with pytest.raises(NotReplayable, match=UNPLAYABLE[family, training]):
            FrozenPrefix(model, batch)
        return
    check(model, batch)


@pytest.mark.parametrize("training", ["head", "last", "half"])
@pytest.mark.parametrize("name", TORCHVISION)
def test_prefix__of_torchvision(name: str, training: str, classes: Classification) -> None:
    torch.manual_seed(0)
    model = Torchvision(name, weights=None).build(classes).eval()
    freeze(model, training)
    check(model, {"index": torch.arange(2), "inputs": {"x": torch.randn(2, 3, 64, 64)}})


@pytest.mark.parametrize("dropout", [0.0, 0.2], ids=["linear alone", "dropout before"])
def test_prefix__who_looks_at_the_head_sees_what_was_recorded(dropout: float,
                                                              classes: Classification) -> None:
    """A hook on the linear layer, whose input in the playing pass is not the recorded one."""
    pytest.importorskip("timm")
    model = Timm("test_efficientnet", None, dropout=dropout).build(classes).eval()
    freeze(model, "head")
    batch = {"index": torch.arange(2), "inputs": {"x": torch.randn(2, 3, 64, 64)}}
    with torch.no_grad():
        expected = model.features(batch)
        prefix = FrozenPrefix(model, batch)
        model.playing = prefix.playing
        cached = {**batch, "prefix": Recorded(*prefix.record(batch))}
        assert torch.equal(model.features(cached), expected)
        assert not model.network.classifier._forward_pre_hooks
