"""Ladder side tuning against its formula, with PyTorch's own transformer layer beside the backbone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from matrix import make_world
from steps import Bench
from torch import Tensor, nn

from ftlab.backbones.passes import tensors
from ftlab.backbones.task_model import TaskModel
from ftlab.errors import Incompatible
from ftlab.techniques.base import Technique
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.techniques.ladder_side_tuning import LadderSideTuning
from ftlab.techniques.lora import LoRA


@pytest.fixture(scope="module")
def bench(request: pytest.FixtureRequest) -> Callable[[str], Bench]:
    made: dict[str, Bench] = {}

    def make(world: str) -> Bench:
        if world not in made:
            made[world] = Bench(make_world(world, request.getfixturevalue))
        return made[world]

    return make


def rungs(model: TaskModel) -> list[Any]:
    return [m for m in model.modules() if type(m).__name__ == "Rung"]


def shaken(model: TaskModel) -> list[Any]:
    """The rungs, with gates that are not at their start."""
    for number, rung in enumerate(rungs(model)):
        with torch.no_grad():
            rung.gate.fill_(0.05 * number - 0.04)
            if rung.top_gate is not None:
                rung.top_gate.fill_(0.03)
    return rungs(model)


def torch_layer(rung: Any) -> nn.Module:
    """PyTorch's pre-norm layer with a rung's weights."""
    width = rung.down.out_features
    layer = nn.TransformerEncoderLayer(width, rung.heads, 4 * width, 0.0, "gelu", norm_first=True,
                                       batch_first=True)
    layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias = rung.attend.parameters()
    layer.self_attn.out_proj.weight, layer.self_attn.out_proj.bias = rung.project.parameters()
    layer.linear1, layer.linear2 = rung.widen, rung.narrow
    layer.norm1, layer.norm2 = rung.norms
    return layer.train()  # without the fast path


@pytest.mark.parametrize("merge_last", [False, True])
def test_outputs__are_the_formula_s(merge_last: bool, bench: Any) -> None:
    here = bench("text_classification")
    plain, batch = here.model(LadderSideTuning()).eval(), here.batches[0]
    names = [block.name for block in plain.blocks]
    one = here.bound(LadderSideTuning(reduction=4, merge_last=merge_last)).eval()
    ladder = shaken(one.model)
    with torch.no_grad():
        below, *given = plain.watched(batch, names).blocks.values()
        padding = batch["inputs"]["attention_mask"] == 0
        assert padding.any()
        side = ladder[0].enter(below)
        for rung, hidden in zip(ladder, given, strict=True):
            mu = torch.sigmoid(rung.gate / 0.1)
            side = torch_layer(rung)(mu * side + (1 - mu) * rung.down(hidden),
                                     src_key_padding_mask=padding)
        norm, up = ladder[-1].leave
        top = up(norm(side))
        if merge_last:
            top = torch.sigmoid(torch.tensor(0.3)) * top + torch.sigmoid(torch.tensor(-0.3)) * hidden
        watched = one.model.watched(batch, names[-1:])
        real = ~padding[..., None]
        torch.testing.assert_close(watched.blocks[names[-1]] * real, top * real, atol=1e-5, rtol=1e-4)
        pooled = (top * real).sum(1) / real.sum(1)
        torch.testing.assert_close(watched.features, pooled, atol=1e-5, rtol=1e-4)


def test_parameters__by_their_formula(bench: Any) -> None:
    here = bench("text_classification")
    model = here.bound(LadderSideTuning(reduction=4)).model
    layers, wide = len(model.blocks) - 1, model.pooled_head.linear.in_features
    d = wide // 4
    rung = (wide * d + d) + 1 + (12 * d * d + 9 * d) + 4 * d
    ends = (wide * d + d) + 2 * d + (d * wide + wide)
    head = sum(p.numel() for p in model.head.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == layers * rung + ends + head


def kept_bytes(here: Bench, technique: Technique) -> int:
    """What a step keeps for its gradients, beside the parameters."""
    one = here.bound(technique)
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    own = {p.untyped_storage().data_ptr() for p in one.model.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        one.objective(one.model, here.data.task, here.batches[0])
    return sum(t.untyped_storage().nbytes() for at, t in kept.items() if at not in own)


def test_backbone__keeps_nothing_for_gradients(bench: Any) -> None:
    here = bench("text_classification")
    one = here.bound(LadderSideTuning(reduction=4))
    side = {id(m) for rung in rungs(one.model) for m in rung.modules()}
    frozen = {name: module for name, module in one.model.trunk.named_modules()
              if not any(id(m) in side for m in module.modules())}
    seen: dict[str, bool] = {}
    hooks = [module.register_forward_hook(lambda _, inputs, output, name=name: seen.update(
        {name: any(tensor.requires_grad for tensor in tensors(output))}))
        for name, module in frozen.items()]
    one.objective(one.model, here.data.task, here.batches[0]).backward()
    for hook in hooks:
        hook.remove()
    assert len(seen) > 20 and not any(seen.values())
    trained = {n for n, p in one.model.named_parameters() if p.requires_grad}
    assert {n for n, p in one.model.named_parameters() if p.grad is not None} == trained
    less = kept_bytes(here, LadderSideTuning(reduction=8))
    assert less < kept_bytes(here, LoRA())
    assert less < kept_bytes(here, FullFineTuning()) / 2


@pytest.mark.parametrize("world", ["text_classification", "text_classification_decoder"])
def test_example__does_not_depend_on_its_neighbours(world: str, bench: Any) -> None:
    here = bench(world)
    one = here.bound(LadderSideTuning(reduction=4)).eval()
    batch = here.batches[0]
    lengths = batch["inputs"]["attention_mask"].sum(1)
    shortest = int(lengths.argmin())
    mask = batch["inputs"]["attention_mask"][shortest].bool()
    assert not mask.all()
    alone = {"inputs": {name: value[shortest : shortest + 1][:, mask]
                        for name, value in batch["inputs"].items()},
             "index": batch["index"][:1], "target": batch["target"][:1]}
    with torch.no_grad():
        torch.testing.assert_close(one.model(batch)[shortest], one.model(alone)[0], atol=1e-5,
                                   rtol=1e-4)


@pytest.mark.parametrize("padded", [True, False])
def test_decoder__has_a_side_that_looks_back_alone(padded: bool, bench: Any) -> None:
    here = bench("text_classification_decoder")
    one = here.bound(LadderSideTuning(reduction=4)).eval()
    ids = here.batches[0]["inputs"]["input_ids"][:2, :6]
    other = ids.clone()
    other[:, -1] = (ids[:, -1] + 1) % 20
    mask = {"attention_mask": torch.ones_like(ids)} if padded else {}

    def states(ids: Tensor) -> Tensor:
        batch = {"inputs": {"input_ids": ids, **mask}, "index": torch.arange(2)}
        top = one.model.get_submodule(one.model.blocks[-1].paths[0])
        found: list[Tensor] = []
        hook = top.register_forward_hook(lambda _, inputs, given: found.append(tensors(given)[0]))
        try:
            one.model.network(**batch["inputs"])
        finally:
            hook.remove()
        return found[0]

    with torch.no_grad():
        some, others = states(ids), states(other)
    torch.testing.assert_close(some[:, :-1], others[:, :-1])
    assert not torch.allclose(some[:, -1], others[:, -1])


def test_ladder__refuses(bench: Any) -> None:
    with pytest.raises(ValueError, match="reduction must be at least 1, got 0"):
        LadderSideTuning(reduction=0)
    with pytest.raises(Incompatible, match="reduction=1000"):
        bench("text_classification").bound(LadderSideTuning(reduction=1000))
    with pytest.raises(Incompatible, match=r"ResNet.* is not such a network"):
        bench("image_classification").bound(LadderSideTuning())
