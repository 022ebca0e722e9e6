"""Adapters after and beside: the papers' formulas and counts."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from ftlab.backbones.find_blocks import find_blocks
from ftlab.backbones.task_model import TaskModel
from ftlab.errors import Incompatible
from ftlab.tasks.classification import Classification
from ftlab.techniques.bottleneck_adapter import BottleneckAdapter

WIDTH, LAYERS = 16, 3
IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def classes() -> Classification:
    task = Classification()
    task.fit(["a", "b", "c"])
    return task


@pytest.fixture(params=["transformers", "torchvision"])
def fresh(request: pytest.FixtureRequest, backbone: Callable, classes: Classification
          ) -> Callable[[], tuple[TaskModel, dict]]:
    """Makes the same vision transformer again, with a batch."""
    def make() -> tuple[TaskModel, dict]:
        torch.manual_seed(0)
        if request.param == "transformers":
            return backbone("vit").build(classes).eval(), {"inputs": {"pixel_values": IMAGES}}
        network = VisionTransformer(32, 8, LAYERS, 2, WIDTH, 24, num_classes=3)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.5)
        model = TaskModel(network, find_blocks(network, ["heads"]), ["heads"])
        return model.eval(), {"inputs": {"x": IMAGES}}

    return make


def adapters(model: TaskModel) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in model.named_parameters() if ".adapter." in name}


def stray(model: TaskModel) -> list[dict[str, Tensor]]:
    """Give adapters random numbers; their tensors, adapter by adapter."""
    tensors = adapters(model)
    owners = list(dict.fromkeys(name.rpartition(".adapter.")[0] for name in tensors))
    for tensor in tensors.values():
        nn.init.normal_(tensor)
    return [{name.rpartition(".adapter.")[2]: tensor for name, tensor in tensors.items()
             if name.startswith(owner + ".adapter.")} for owner in owners]


@pytest.mark.parametrize("scale", [None, 4.0])
def test_beside__adds_to_the_feed_forward_network_what_its_input_makes(
    scale: float | None, fresh: Callable, classes: Classification
) -> None:
    model, batch = fresh()
    plain = model(batch)
    BottleneckAdapter(64, train_norms=False, place="beside", scale=scale).bind(model, classes)
    model.eval()
    torch.testing.assert_close(model(batch), plain)
    added = adapters(model)
    assert sum(p.numel() for p in added.values()) == LAYERS * (2 * 64 * WIDTH + 64 + WIDTH)
    assert not any(t.any() for name, t in added.items() if name.endswith(("down.bias", "up.weight")))
    own = {name for name, p in model.named_parameters() if p.requires_grad}
    assert own == {*added, *(name for name, _ in model.head.named_parameters())}

    parts = stray(model)
    other, _ = fresh()
    networks = [m for name, m in other.named_modules() if name.endswith(".mlp")]
    assert len(networks) == len(parts) == LAYERS
    for network, part in zip(networks, parts, strict=True):
        def beside(_: nn.Module, args: tuple, output: Tensor, part: dict = part) -> Tensor:
            inner = (args[0] @ part["down.weight"].T + part["down.bias"]).clamp(min=0)
            return output + (scale or 0.1) * (inner @ part["up.weight"].T + part["up.bias"])

        network.register_forward_hook(beside)
    expected = other(batch)
    torch.testing.assert_close(model(batch), expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(expected, plain, atol=1e-3)


def test_after__is_scaled(fresh: Callable, classes: Classification) -> None:
    model, batch = fresh()
    BottleneckAdapter(4, scale=3.0).bind(model, classes)
    model.eval()
    parts = stray(model)
    assert len(parts) == 2 * LAYERS
    other, _ = fresh()
    BottleneckAdapter(4, place="after").bind(other, classes)
    other.eval()
    for ours, part in zip(stray(other), parts, strict=True):
        for name, tensor in ours.items():
            tensor.copy_(part[name] * (3.0 if name.startswith("up") else 1.0))
    torch.testing.assert_close(model(batch), other(batch), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "gpt2", "t5", "bart", "swin"])
def test_beside__is_in_every_block_with_attention(
    family: str, backbone: Callable, batch_of: Callable, classes: Classification
) -> None:
    model, batch = backbone(family).build(classes).eval(), batch_of(family)
    BottleneckAdapter(4, place="beside").bind(model, classes)
    assert len(stray(model)) == len(model.blocks) - 1
    model(batch).square().sum().backward()
    added = [p for name, p in model.named_parameters() if ".adapter." in name]
    assert all(p.grad is not None for p in added)


def test_refusals(backbone: Callable, classes: Classification) -> None:
    with pytest.raises(Incompatible, match="no block has a feed-forward network"):
        BottleneckAdapter(place="beside").bind(backbone("resnet").build(classes), classes)
    with pytest.raises(ValueError, match="place must be after or beside, got 'before'"):
        BottleneckAdapter(place="before")  # type: ignore[arg-type]  # that is what is refused
    with pytest.raises(ValueError, match="scale must be above 0, got 0"):
        BottleneckAdapter(scale=0)
