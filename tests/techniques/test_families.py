"""Techniques that reach into a network, on every family of backbones."""

from collections.abc import Callable

import pytest
import torch
from families import IMAGE, TEXT
from torch import nn

from ftlab.backbones.quantization import READS_WEIGHTS
from ftlab.backbones.torchvision import Torchvision
from ftlab.errors import Incompatible
from ftlab.studies.discover import members
from ftlab.tasks.classification import Classification
from ftlab.techniques.base import Technique
from ftlab.techniques.peft_injection import adaptable_layers
from ftlab.training.unused_parameters import retire_unused

TECHNIQUES = members(Technique)
REACHING = ["LoRA", "IA3", "BottleneckAdapter", "BitFit", "NormTuning", "PrefixTuning", "PromptTuning"]
REFUSED = {  # family -> techniques, beside prompts on images
    "t5": {"BitFit", "PrefixTuning", "PromptTuning"},
    "distilbert": {"PrefixTuning"},
    "deberta": {"PrefixTuning"},
    "bart": {"PrefixTuning", "PromptTuning"},
    "gpt2": {"PromptTuning"},
}


@pytest.fixture
def classes() -> Classification:
    task = Classification()
    task.fit(["a", "b", "c"])
    return task


def all_trainable_get_gradient(technique: Technique, batch: dict) -> list[str]:
    """Names of those that do not, after an update (LoRA's A has none while B is zero)."""
    technique.train()
    optimizer = torch.optim.SGD([p for p in technique.model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        technique.model(batch).square().sum().backward()
        optimizer.step()
    return [
        name
        for name, p in technique.model.named_parameters()
        if p.requires_grad and (p.grad is None or not p.grad.abs().sum() > 0)
    ]


@pytest.mark.parametrize("name", REACHING)
@pytest.mark.parametrize("family", [f for f in (*TEXT, *IMAGE) if f != "bert_mlm"])  # no pooler
def test_every_added_tensor_gets_gradient(
    family: str, name: str, backbone: Callable, batch_of: Callable, classes: Classification
) -> None:
    chosen = backbone(family)
    batch = batch_of(family)
    model = chosen.build(classes).eval()
    retire_unused(model, batch)
    technique = TECHNIQUES[name]()
    prompts = name in ("PrefixTuning", "PromptTuning")
    if name in REFUSED.get(family, ()) or (prompts and family in IMAGE):
        with pytest.raises(Incompatible):
            technique.bind(model, classes)
        return
    technique.bind(model, classes)
    without = all_trainable_get_gradient(technique, batch)
    # Softmax does not see a bias that all keys share.
    assert [n for n in without if "key" not in n and "k_" not in n] == []


@pytest.mark.parametrize("name", ["swin_t", "vit_b_16", "mobilenet_v2", "resnet18"])
def test_adaptable_layers__only_those_that_are_called(name: str, classes: Classification) -> None:
    model = Torchvision(name, weights=None).build(classes, meta=True)
    layers = adaptable_layers(model)
    assert layers
    assert all(getattr(layer, "groups", 1) == 1 for layer in layers.values())
    for path in layers:
        parents = [".".join(path.split(".")[:i]) for i in range(1, path.count(".") + 1)]
        kinds = {type(model.network.get_submodule(parent)).__name__ for parent in parents}
        assert not kinds & set(READS_WEIGHTS)


@pytest.mark.parametrize("name", ["LoRA", "IA3", "BottleneckAdapter", "NormTuning"])
@pytest.mark.parametrize("network", ["mobilenet_v2", "resnet18", "squeezenet1_0"])
def test_torchvision__adapted_and_refused(
    network: str, name: str, classes: Classification
) -> None:
    model = Torchvision(network, weights=None).build(classes)
    technique = TECHNIQUES[name]()
    if (network, name) == ("squeezenet1_0", "NormTuning"):
        with pytest.raises(Incompatible, match="this backbone has none"):
            technique.bind(model, classes)
        return
    technique.bind(model, classes)
    batch = {"inputs": {"x": torch.randn(2, 3, 64, 64)}}
    batch["inputs"] = dict(zip(input_names(model.network), batch["inputs"].values(), strict=True))
    technique.train()
    technique.model(batch).sum().backward()
    head = [p.grad for p in technique.model.head.parameters()]
    assert all(gradient is not None for gradient in head)


def input_names(network: nn.Module) -> list[str]:
    import inspect

    return list(inspect.signature(network.forward).parameters)[:1]
