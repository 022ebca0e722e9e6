"""Models of every world, exported and loaded by their own ecosystem, without ftlab."""

import inspect
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from exported import every_export, finding
from matrix import FEW, TECHNIQUES, WORLDS, World, make_world

from ftlab.backbones.base import Backbone
from ftlab.backbones.huggingface import HuggingFace
from ftlab.backbones.task_model import tensors
from ftlab.backbones.timm import Timm
from ftlab.backbones.torchvision import Torchvision
from ftlab.data.base import DataModule
from ftlab.data.image import ImageClassification
from ftlab.data.image_augment import ImageAugment
from ftlab.data.text import TextClassification
from ftlab.exports.verify import expected_outputs
from ftlab.studies.discover import members
from ftlab.tasks.base import Task
from ftlab.tasks.same_prediction import alike
from ftlab.techniques.peft_technique import PeftTechnique

CASES = [(world, "FullFineTuning", False) for world in WORLDS]
CASES += [(world, "LoRA", False) for world in WORLDS]
CASES += [(world, "LoRA", True) for world in (
    "text_classification", "image_classification", "causal_lm", "speech_recognition_ctc")]
CASES += [(world, "PromptTuning", False) for world in ("causal_lm", "seq2seq", "multi_label")]
CASES += [(w, "PrefixTuning", False) for w in ("causal_lm", "seq2seq", "token_classification")]
CASES += [("text_classification", name, False) for name in ("LinearProbe", "ZeroShot", "IA3")]
CASES += [("image_classification_clip", "ZeroShot", False), ("seq2seq", "Untuned", False)]
CASES += [(world, "SSF", True) for world in FEW]
CASES += [("text_classification", name, True) for name, cls in TECHNIQUES.items() if issubclass(
    cls, PeftTechnique) and "method" not in inspect.signature(cls).parameters]
CASES += [(name, "FullFineTuning", False) for name in ("torchvision", "timm", "timm_conv")]
CASES += [("torchvision", "LoRA", True), ("timm", "LoRA", True)]
CASES += [(f"pooled_{mode}", "LinearProbe", False) for mode in ("first", "last", "max")]
CASES += [(f"pooled_{network}", "LinearProbe", False) for network in ("vit", "resnet", "swin")]
Case = tuple[str, str, bool]


def make(name: str, fixture: Callable[[str], Any]) -> World:
    """A world of the matrix, or another network on its images and texts."""
    if name in WORLDS:
        return finding(make_world(name, fixture))
    images, texts = str(fixture("shapes")), str(fixture("reviews"))
    trunk, save = str(fixture("tiny_trunk")), fixture("save")
    networks: dict[str, Callable[[], Backbone]] = {
        "torchvision": lambda: Torchvision("shufflenet_v2_x0_5", trunk),
        "timm": lambda: Timm("test_vit", None, dropout=0.1, image_size=64),
        "timm_conv": lambda: Timm("test_resnet", None, dropout=0.1),
        "pooled_vit": lambda: HuggingFace(str(save("vit")), pooling="first"),
        "pooled_resnet": lambda: HuggingFace(str(save("resnet")), pooling="mean"),
        "pooled_swin": lambda: HuggingFace(str(save("swin")), pooling="max"),
    }
    if name in networks:
        return lambda: (networks[name](), ImageClassification(
            images, image_size=None if name in ("timm", "pooled_vit", "pooled_swin") else 40,
            augment=ImageAugment(policy="none"), batch_size=8))
    mode: Any = name.removeprefix("pooled_")
    return lambda: (HuggingFace(str(save("bert")), pooling=mode),
                    TextClassification(texts, max_length=20, batch_size=8))


@pytest.fixture(scope="module")
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
             ) -> dict[Case, dict[str, Any]]:
    """Every case: what ftlab's model gives for some examples, and what its export gives alone."""
    return every_export(
        CASES, lambda name: make(name, request.getfixturevalue),
        tmp_path_factory.mktemp("exports"),
        lambda model, _, chosen: {
            "expected": expected_outputs(model, chosen), "type": model.run.data.task.output_type,
            "parts": {type(part) for part in (model.run.backbone, model.run.data,
                                              model.run.data.task)}})


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_loads_without_ftlab_and_gives_the_same(
    case: Case, exported: dict[Case, dict[str, Any]]
) -> None:
    found = exported[case]
    if "silent" in found:
        pytest.skip("its parts export no code")
    assert "error" not in found, found["error"]
    rounding = 1e-4 if case[2] else 1e-5  # merged weights sum in another order
    picked_within = found["type"] == "boxes" and not found["outputs"]  # so there is nothing raw
    for given, ours in zip(found["outputs"], found["expected"] * (not picked_within), strict=True):
        number = ours.record["prediction"]  # what an export computes itself, and ours in deviations
        expected = [torch.tensor([[number]])] if isinstance(number, float) else ours.outputs
        torch.testing.assert_close(tensors(given), expected, rtol=rounding, atol=rounding)
    for told, ours in zip(found["told"], found["expected"], strict=True):
        said = told[0][0] if isinstance(told, tuple) else told[0]
        assert alike(said, ours.record["prediction"], 1e-3)


@pytest.mark.parametrize("family", [Backbone, DataModule, Task])
def test_whoever_exports_code_is_exported_here(
    family: type, exported: dict[Case, dict[str, Any]]
) -> None:
    parts = set().union(*(found["parts"] for found in exported.values() if "folder" in found))
    lacking = [name for name, cls in members(family).items()
               if cls.export_code is not family.export_code and cls not in parts]
    assert parts
    assert not lacking


def test_names_of_classes__are_where_transformers_looks(
    exported: dict[Case, dict[str, Any]]
) -> None:
    folder = exported["image_classification", "LoRA", True]["folder"]
    said = json.loads((folder / "config.json").read_text())
    assert said["id2label"] == {"0": "left", "1": "right"}
    assert said["problem_type"] == "single_label_classification"
    assert said["architectures"] == ["ResNetForImageClassification"]
