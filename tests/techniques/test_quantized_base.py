"""Every technique on a base of 4 or 8 bits: refused with a reason, or exact on what the base stands for."""

import copy
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch

pytest.importorskip("bitsandbytes", reason="quantised bases are bitsandbytes'")

from matrix import TECHNIQUES, make_technique, make_world
from steps import Bench

from ftlab.backbones.quantization import Quantization, dequantize, quantized_layers
from ftlab.backbones.task_model import TaskModel
from ftlab.errors import Incompatible
from ftlab.techniques.base import Technique
from ftlab.techniques.peft_generic import Peft
from ftlab.techniques.peft_methods import METHODS
from ftlab.techniques.peft_technique import PeftTechnique
from ftlab.techniques.wrapper import Wrapper
from ftlab.training.guards import TensorGuard

KINDS = {"nf4": Quantization("nf4", double_quant=True), "int8": Quantization("int8"),
         "table": Quantization("nf4", embeddings="int8")}
WRITE = {"FullFineTuning", "GradualUnfreezing", "LinearProbeThenFineTune", "PartialFineTuning", "SetFit",
         "SurgicalFineTuning"}
"""Techniques that train the backbone's own matrices."""
SHORT = 2


@pytest.fixture(scope="module")
def bench(request: pytest.FixtureRequest) -> Bench:
    return Bench(make_world("text_classification", request.getfixturevalue))


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's own
        yield


def quantised(bench: Bench, technique: Technique, kind: str) -> TaskModel:
    model = bench.model(technique)
    KINDS[kind].apply(model, "a base")
    return model


def stirred_step(bench: Bench, technique: Technique, model: TaskModel) -> dict[str, torch.Tensor]:
    """Loss and gradients of a step, from a start at which all that trains says something."""
    bench.bound(technique, model)
    torch.manual_seed(3)
    technique.begin_fit(model, bench.data, SHORT)
    technique.begin_epoch(model, 0, SHORT)
    technique.train()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.02 * torch.randn(parameter.shape))
    loss = technique.objective(model, bench.data.task, bench.batches[0])
    loss.backward()
    return {"loss": loss.detach()} | {name: p.grad for name, p in model.named_parameters()
                                      if p.grad is not None}


def exact(bench: Bench, make: Callable[[], Technique], kind: str) -> None:
    """Hold a technique to what it does on the same weights in floating point."""
    model = quantised(bench, make(), kind)
    plain = copy.deepcopy(model)
    dequantize(plain)
    given, expected = stirred_step(bench, make(), model), stirred_step(bench, make(), plain)
    assert given.keys() == expected.keys()
    for name, value in expected.items():
        least = 1e-5 * max(float(value.abs().max()), 1e-3)
        torch.testing.assert_close(given[name], value, rtol=1e-4, atol=least, msg=lambda m, n=name: n + m)


@pytest.mark.parametrize(("name", "kind"), [
    (name, kind) for name, cls in TECHNIQUES.items() if cls.trains and not issubclass(cls, Wrapper)
    for kind in KINDS if kind == "nf4" or name == "LoRA" or not issubclass(cls, PeftTechnique)])  # its methods follow
def test_technique__is_refused__or_exact_on_the_weights_that_the_base_stands_for(
    name: str, kind: str, bench: Bench
) -> None:
    try:
        exact(bench, lambda: make_technique(name), kind)
        assert name not in WRITE
    except Incompatible as refusal:
        assert name in WRITE or "quantised" in refusal.what or name == "VisualPromptTuning", refusal


@pytest.mark.parametrize("kind", ["nf4", "int8"])
@pytest.mark.parametrize("method", [m for m, facts in METHODS.items() if facts.alone])
def test_method_of_peft__is_refused__or_exact(method: str, kind: str, bench: Bench) -> None:
    if METHODS[method].quantized:
        exact(bench, lambda: Peft(method), kind)
        return
    with pytest.raises(Incompatible, match="does not go with quantised weights"):
        Peft(method).adapt(quantised(bench, Peft(method), kind))


@pytest.mark.parametrize("name", ["LoRA", "BitFit", "SSF", "FullFineTuning", "OFT", "LoHa"])
def test_plan__on_the_meta_device__says_what_the_run_says(name: str, bench: Bench) -> None:
    technique = make_technique(name)
    empty, real = (model.to("meta") if place == "meta" else model
                   for place in ("meta", "cpu") for model in [bench.model(technique)])
    KINDS["nf4"].apply(empty, "a base")
    KINDS["nf4"].apply(real, "a base")
    said = []
    for model in (empty, real):
        try:
            make_technique(name).bind(model, bench.data.task)
            said.append({n: p.shape for n, p in model.named_parameters() if p.requires_grad})
        except Incompatible as refusal:
            said.append(refusal.what)
    assert said[0] == said[1]


@pytest.mark.parametrize("kind", KINDS)
def test_fit__leaves_quantised_weights_as_they_were__and_adds_float32(kind: str, bench: Bench) -> None:
    model = quantised(bench, make_technique("LoRA"), kind)
    weights = {f"{path}.weight" for path in quantized_layers(model)}
    technique = bench.bound(make_technique("LoRA"), model)
    guard = TensorGuard(model)
    bench.fit(technique, 3)
    moved = guard.moved(model)
    assert moved and all("lora_" in name or model.head.holds(name) for name in moved)
    assert len(weights) == 18 + (kind == "table") and {str(p.dtype) for n, p in model.named_parameters() if n in moved} == {
        "torch.float32"}
    assert technique.merge(model) is False  # quantised again it would lose a part of what was added
