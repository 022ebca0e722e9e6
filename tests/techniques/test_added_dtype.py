"""Adapters, prompts and the like are float32 whatever the base, and a step moves them."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from matrix import TECHNIQUES, make_technique, make_world
from safetensors.torch import load_file
from steps import Bench

from ftlab.backbones.heads.single_precision import widen_head
from ftlab.backbones.huggingface import HuggingFace
from ftlab.backbones.quantization import Quantization
from ftlab.backbones.task_model import TaskModel
from ftlab.errors import Incompatible
from ftlab.tasks.classification import Classification
from ftlab.techniques.base import Technique
from ftlab.techniques.peft_generic import Peft
from ftlab.techniques.wrapper import Wrapper
from ftlab.training.execute import execute
from ftlab.training.guards import TensorGuard
from ftlab.training.precision import convert
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings

BASES = ["text_classification", "text_classification_decoder", "image_classification"]
ADDING = [name for name, cls in TECHNIQUES.items() if cls.trains and not issubclass(cls, Wrapper)]
SHORT = 3  # steps of a fit


@pytest.fixture(scope="module")
def benches(request: pytest.FixtureRequest) -> dict[str, Bench]:
    return {name: Bench(make_world(name, request.getfixturevalue)) for name in BASES}


def half(bench: Bench, technique: Technique) -> TaskModel:
    """The model of a world in bfloat16, as a backbone with `dtype: bfloat16` gives it."""
    model = bench.model(technique).to(torch.bfloat16)
    widen_head(model)
    return model


def added(model: TaskModel, known: set[int]) -> dict[str, torch.nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if id(p) not in known and p.requires_grad}


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("name", ADDING)
def test_half_precision_base__what_is_added_is_float32_and_trains(
    name: str, base: str, benches: dict[str, Bench]
) -> None:
    bench, technique = benches[base], make_technique(name)
    model = half(bench, technique)
    head = {id(parameter) for parameter in model.head.parameters()}
    known = {id(parameter) for parameter in model.parameters()} - head
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            bench.bound(technique, model)
        except Incompatible:
            return  # the contract tests hold it to its refusals
        new = added(model, known)
        before = {key: p.detach().clone() for key, p in new.items() if id(p) not in head}
        guard = TensorGuard(model)
        bench.fit(technique, SHORT)
    new = added(model, known)
    assert {str(p.dtype) for p in new.values()} <= {"torch.float32"}, "adapters, and the head"
    old = [p for p in model.parameters() if id(p) in known]
    assert {p.dtype for p in old} == {torch.bfloat16}, "what was there stays as it was"
    moved = guard.moved(model)
    assert before.keys() & moved or not before, "nothing of what was added has moved"
    bench.data.task.loss(model(bench.batches[0]), bench.batches[0])


def test_vision_transformer__prompts_are_float32(save: Any) -> None:
    from ftlab.techniques.visual_prompt_tuning import VisualPromptTuning

    backbone = HuggingFace(str(save("vit")), dtype="bfloat16")
    task = Classification()
    task.fit(["a", "b"])
    model = backbone.build(task)
    VisualPromptTuning(deep=True).adapt(model)
    prompts = {p.dtype for name, p in model.named_parameters() if name.endswith("prompts")}
    assert prompts == {torch.float32}


def test_precision_bf16_true__has_all_in_bfloat16(tiny_bert: Path) -> None:
    """The setting that says otherwise."""
    task = Classification()
    task.fit(["a", "b"])
    model = HuggingFace(str(tiny_bert), dtype="bfloat16").build(task)
    technique = Peft("lora")
    technique.bind(model, task)
    assert torch.float32 in {p.dtype for p in model.parameters()}
    convert(model, "bf16-true")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("task", ["text_classification", "token_classification", "regression", "multi_label"])
def test_head__is_float32__and_reads_what_the_network_gives(task: str, dtype: Any, request: Any) -> None:
    backbone, data = make_world(task, request.getfixturevalue)()
    backbone.dtype = dtype
    data.load()
    data.connect(backbone, seed=0)
    model = backbone.build(data.task)
    batch = next(iter(data.train_dataloader()))
    outputs = model(batch)
    assert {p.dtype for p in model.head.parameters()} == {outputs.dtype} == {torch.float32}
    data.task.loss(outputs, batch).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad and p.dtype == torch.float32)


@pytest.mark.parametrize("quantize", [None, Quantization("nf4")])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_precision__adds_float32__unless_it_says_all_in_bfloat16(
    precision: str, quantize: Any, tmp_path: Path, request: Any
) -> None:
    if quantize is not None:
        pytest.importorskip("bitsandbytes", reason="quantised bases are bitsandbytes'")
    backbone, data = make_world("text_classification", request.getfixturevalue)()
    backbone.dtype, backbone.quantize = "bfloat16", quantize
    settings = TrainerSettings(max_epochs=1, precision=precision)
    run = Run(backbone, data, make_technique("LoRA"), settings, 0, "val/loss", tmp_path)
    metrics = execute(run, lambda event: None)
    assert ("cost/latency_merged_seconds" in metrics) == (quantize is None), "unmerged where it would lose"
    state = load_file(tmp_path / "checkpoint" / "delta.safetensors")
    dtype = torch.bfloat16 if precision == "bf16-true" else torch.float32
    assert {tensor.dtype for tensor in state.values()} == {dtype}
    assert all("lora_" in name or "head" in name for name in state), "what changed, and nothing more"
    assert metrics["cost/total_parameters"] == sum(
        p.numel() for p in backbone.build(data.task, meta=True).parameters()) + metrics[
            "cost/trainable_parameters"] - sum(t.numel() for n, t in state.items() if "lora_" not in n)
