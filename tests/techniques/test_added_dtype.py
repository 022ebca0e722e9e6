"""Adapters, prompts and the like are float32 whatever the base, and a step moves them."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from matrix import TECHNIQUES, make_technique, make_world
from steps import Bench

from ftlab.backbones.huggingface import HuggingFace
from ftlab.backbones.task_model import TaskModel
from ftlab.errors import Incompatible
from ftlab.tasks.classification import Classification
from ftlab.techniques.base import Technique
from ftlab.techniques.peft_generic import Peft
from ftlab.techniques.wrapper import Wrapper
from ftlab.training.guards import TensorGuard
from ftlab.training.precision import convert

BASES = ["text_classification", "text_classification_decoder", "image_classification"]
ADDING = [name for name, cls in TECHNIQUES.items() if cls.trains and not issubclass(cls, Wrapper)]
SHORT = 3  # steps of a fit


@pytest.fixture(scope="module")
def benches(request: pytest.FixtureRequest) -> dict[str, Bench]:
    return {name: Bench(make_world(name, request.getfixturevalue)) for name in BASES}


def half(bench: Bench, technique: Technique) -> TaskModel:
    """The model of a world in bfloat16, as a backbone with `dtype: bfloat16` gives it."""
    return bench.model(technique).to(torch.bfloat16)


def added(model: TaskModel, known: set[int]) -> dict[str, torch.nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if id(p) not in known and p.requires_grad}


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("name", ADDING)
def test_half_precision_base__what_is_added_is_float32_and_trains(
    name: str, base: str, benches: dict[str, Bench]
) -> None:
    bench, technique = benches[base], make_technique(name)
    model = half(bench, technique)
    known = {id(parameter) for parameter in model.parameters()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            bench.bound(technique, model)
        except Incompatible:
            return  # the contract tests hold it to its refusals
        new = added(model, known)
        before = {key: p.detach().clone() for key, p in new.items()}
        guard = TensorGuard(model)
        bench.fit(technique, SHORT)
    new = added(model, known)
    assert {str(p.dtype) for p in new.values()} <= {"torch.float32"}
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
