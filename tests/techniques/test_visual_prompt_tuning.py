"""Prompts between class token and patches: in the right layers, and gone behind the last."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from ftlab.backbones.find_blocks import find_blocks
from ftlab.backbones.task_model import TaskModel
from ftlab.errors import Incompatible
from ftlab.tasks.classification import Classification
from ftlab.techniques.visual_prompt_tuning import VisualPromptTuning

WIDTH, LAYERS, PATCH = 16, 3, 8


@pytest.fixture
def classes() -> Classification:
    task = Classification()
    task.fit(["a", "b", "c"])
    return task


def of_torchvision(layers: int = LAYERS) -> TaskModel:
    torch.manual_seed(0)
    network = VisionTransformer(32, PATCH, layers, 2, WIDTH, 24, num_classes=3)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)
    return TaskModel(network, find_blocks(network, ["heads"]), ["heads"]).eval()


IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=["transformers", "torchvision"])
def fresh(request: pytest.FixtureRequest, backbone: Callable, classes: Classification
          ) -> Callable[[], tuple[TaskModel, dict]]:
    """Makes the same model again, with a batch."""
    def make() -> tuple[TaskModel, dict]:
        if request.param == "torchvision":
            return of_torchvision(), {"inputs": {"x": IMAGES}}
        torch.manual_seed(0)
        return backbone("vit").build(classes).eval(), {"inputs": {"pixel_values": IMAGES}}

    return make


def prompts_of(model: TaskModel) -> dict[str, Tensor]:
    return {name: p for name, p in model.named_parameters() if name.endswith(".prompts")}


def by_hand(model: TaskModel, batch: dict, prompts: list[Tensor], deep: bool) -> Tensor:
    """Run a plain model layer by layer, with prompts from the layer on that has the first."""
    given: list[Tensor] = []
    layers = [model.get_submodule(block.paths[0]) for block in model.blocks[1:]]
    stop = layers[0].register_forward_pre_hook(lambda _, args: given.append(args[0]))
    model(batch)
    stop.remove()
    hidden, count = given[0], len(prompts[0])
    start = len(layers) - len(prompts) if deep else 0
    for number, layer in enumerate(layers):
        if number == start or (deep and number > start):
            own = prompts[number - start].expand(len(hidden), -1, -1)
            gone = 0 if number == start else count
            hidden = torch.cat([hidden[:, :1], own, hidden[:, 1 + gone:]], dim=1)
        hidden = layer(hidden)
    last = layers[-1].register_forward_hook(
        lambda *_: torch.cat([hidden[:, :1], hidden[:, 1 + count:]], dim=1))
    outputs = model(batch)
    last.remove()
    return outputs


@pytest.mark.parametrize(("deep", "last"), [(True, None), (False, None), (True, 2)])
def test_outputs__are_those_of_a_loop_over_layers(
    deep: bool, last: int | None, fresh: Callable, classes: Classification
) -> None:
    model, batch = fresh()
    VisualPromptTuning(5, deep, last).bind(model, classes).eval()
    prompts = prompts_of(model)
    for prompt in prompts.values():
        nn.init.normal_(prompt)
    assert sum(p.numel() for p in prompts.values()) == 5 * WIDTH * ((last or LAYERS) if deep else 1)
    expected = by_hand(*fresh(), list(prompts.values()), deep)
    torch.testing.assert_close(model(batch), expected)
    assert not torch.allclose(expected, fresh()[0](batch), atol=1e-3)


def test_deep__of_one_layer_is_shallow(fresh: Callable, classes: Classification) -> None:
    outputs = []
    for deep in (True, False):
        model, batch = fresh()
        torch.manual_seed(2)
        VisualPromptTuning(5, deep, last=1).bind(model, classes).eval()
        outputs.append(model(batch))
    assert torch.equal(*outputs)


def test_layers_without_prompts__see_the_plain_input(
    fresh: Callable, classes: Classification
) -> None:
    model, batch = fresh()
    names = [block.name for block in model.blocks]
    plain = model.watched(batch, names).blocks
    VisualPromptTuning(5, last=1).bind(model, classes).eval()
    seen = model.watched(batch, names).blocks
    same = [torch.allclose(plain[name], seen[name], rtol=1e-4, atol=1e-4)
            for name in names if name in seen]
    assert same == [True] * (len(same) - 1) + [False]
    assert seen[names[-1]].shape == plain[names[-1]].shape


def test_prompts__start_within_the_paper_s_bound(
    fresh: Callable, classes: Classification
) -> None:
    model, _ = fresh()
    VisualPromptTuning(200).bind(model, classes)
    bound = (6 / (3 * PATCH * PATCH + WIDTH)) ** 0.5
    for prompt in (p.detach() for p in prompts_of(model).values()):
        assert 0.99 * bound < prompt.abs().max() <= bound
        assert prompt.std() == pytest.approx(bound / 3**0.5, rel=0.05)


@pytest.mark.parametrize("family", ["resnet", "swin", "convnext", "bert"])
def test_other_networks__are_refused_in_one_line(
    family: str, backbone: Callable, classes: Classification
) -> None:
    model = backbone(family).build(classes)
    with pytest.raises(Incompatible, match="is not such a network") as caught:
        VisualPromptTuning().bind(model, classes)
    assert "\n" not in caught.value.what
    assert caught.value.mend


def test_bad_values(fresh: Callable, classes: Classification) -> None:
    with pytest.raises(ValueError, match="tokens must be at least 1, got 0"):
        VisualPromptTuning(tokens=0)
    with pytest.raises(ValueError, match="last must be at least 1, got 0"):
        VisualPromptTuning(last=0)
    with pytest.raises(Incompatible, match="the model has 3 layers"):
        VisualPromptTuning(last=4).bind(fresh()[0], classes)
