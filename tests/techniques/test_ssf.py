"""Scales and shifts: the paper's count, its fold, and no statistics that move."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as hf
from families import IMAGE, TEXT
from torch import Tensor, nn
from torchvision.models import MobileNetV2, VisionTransformer

from ftlab.backbones.find_blocks import find_blocks
from ftlab.backbones.task_model import TaskModel
from ftlab.errors import Incompatible
from ftlab.tasks.classification import Classification
from ftlab.techniques.ssf import SSF


@pytest.fixture
def classes() -> Classification:
    task = Classification()
    task.fit(["a", "b", "c"])
    return task


def added(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if ".ssf." in name}


def in_noise(model: nn.Module) -> None:
    for parameter in added(model).values():
        parameter.data += 0.3 * torch.randn_like(parameter)


def of_torchvision(network: nn.Module, head: str) -> TaskModel:
    nn.init.normal_(network.get_parameter("heads.head.weight" if head == "heads" else f"{head}.weight"))
    return TaskModel(network, find_blocks(network, [head]), [head]).eval()


OURS: dict[str, Callable[[], TaskModel]] = {
    "torchvision's vit": lambda: of_torchvision(VisionTransformer(32, 8, 2, 2, 16, 24, num_classes=3), "heads"),
    "torchvision's mobilenet": lambda: of_torchvision(MobileNetV2(3, 0.1), "classifier.1"),
}


@pytest.mark.parametrize("family", [*(f for f in (*TEXT, *IMAGE) if f != "bert_mlm"), *OURS])
def test_merged__equals_unmerged(
    family: str, backbone: Callable, batch_of: Callable, classes: Classification
) -> None:
    model = OURS[family]() if family in OURS else backbone(family).build(classes).eval()
    batch = {"inputs": {"x": torch.randn(4, 3, 32, 32)}} if family in OURS else batch_of(family)
    technique = SSF()
    with torch.no_grad():
        plain, names = model(batch), model.state_dict().keys()
        technique.bind(model, classes).eval()
        assert torch.equal(model(batch), plain)
        in_noise(model)
        expected = model(batch)
        assert technique.merge(model)
        torch.testing.assert_close(model(batch), expected, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(plain, expected, rtol=0, atol=1e-4)
    assert model.state_dict().keys() == names  # what other libraries can load
    assert not technique.merge(model)


LAYERS: list[tuple[nn.Module, tuple[int, ...], int]] = [
    (nn.Linear(3, 5), (2, 4, 3), -1), (hf.pytorch_utils.Conv1D(5, 3), (2, 4, 3), -1),
    (nn.Conv2d(4, 6, 3, groups=2), (2, 4, 5, 5), 1), (nn.Conv1d(3, 5, 2), (2, 3, 4), 1),
    (nn.LayerNorm(3), (2, 4, 3), -1), (nn.BatchNorm2d(4), (2, 4, 3, 3), 1),
    (nn.GroupNorm(2, 4), (2, 4, 3, 3), 1),
]


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: type(case[0]).__name__)
def test_layer__is_scaled_and_shifted_along_its_channels(
    case: tuple[nn.Module, tuple[int, ...], int], classes: Classification
) -> None:
    layer, shape, axis = case
    x = torch.randn(shape)
    model = TaskModel(nn.Sequential(layer, nn.Linear(1, 1)), [("one", ["0"])], ["1"]).eval()
    plain: Tensor = layer(x)
    SSF().bind(model, classes).eval()
    in_noise(model)
    ours: Any = layer.get_submodule("ssf")
    expected = torch.movedim(plain, axis, -1) * ours.scale + ours.shift
    torch.testing.assert_close(layer(x), torch.movedim(expected, -1, axis))


def test_count__of_the_paper_s_vit(classes: Classification) -> None:
    """ViT-B/16 has 0.20 million beside the head in the paper's tables."""
    with torch.device("meta"):
        network = hf.ViTForImageClassification(hf.ViTConfig(num_labels=3))
    model = TaskModel(network, find_blocks(network, ["classifier"]), ["classifier"])
    SSF().bind(model, classes)
    one = 768 * (1 + 3 + 1 + 1 + 4 + 1)  # norm, q, k, v, projection, norm, both of the MLP
    assert sum(p.numel() for p in added(model).values()) == 2 * (768 + 12 * one + 768) == 205_824


def test_batch_statistics__stay(classes: Classification) -> None:
    model = OURS["torchvision's mobilenet"]()
    technique = SSF().bind(model, classes).train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    technique.model({"inputs": {"x": torch.randn(4, 3, 32, 32)}}).sum().backward()
    assert all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())
    assert all(p.grad is not None for p in added(model).values())


def test_noise__is_the_start(backbone: Callable, classes: Classification) -> None:
    model = backbone("vit").build(classes)
    technique = SSF(noise=0.02)
    technique.bind(model, classes)
    assert not technique.identity_at_start and SSF().identity_at_start
    for end, mean in (("scale", 1.0), ("shift", 0.0)):
        values = torch.cat([p.detach() for name, p in added(model).items() if name.endswith(end)])
        assert values.mean() == pytest.approx(mean, abs=4e-3)
        assert values.std() == pytest.approx(0.02, rel=0.15)


def test_last__leaves_the_blocks_before(backbone: Callable, classes: Classification) -> None:
    model = backbone("vit").build(classes)
    SSF(last=1).bind(model, classes)
    assert added(model) and all(model.blocks[-1].holds(name) for name in added(model))
    with pytest.raises(Incompatible, match="the model has 4 blocks"):
        SSF(last=5).bind(backbone("vit").build(classes), classes)


def test_bad_values() -> None:
    with pytest.raises(ValueError, match="noise must be at least 0, got -1"):
        SSF(noise=-1)
    with pytest.raises(ValueError, match="last must be at least 1, got 0"):
        SSF(last=0)
