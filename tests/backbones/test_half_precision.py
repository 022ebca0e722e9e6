"""Networks in bfloat16: sound and images come in float32."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

from ftlab.backbones.huggingface import HuggingFace
from ftlab.tasks.boxes import Box
from ftlab.tasks.classification import Classification
from ftlab.tasks.detection import Detection
from ftlab.tasks.transcription import Transcription

WAVES = [np.random.default_rng(i).normal(0, 0.1, 4000 + 500 * i).astype(np.float32)
         for i in range(2)]


@pytest.fixture
def classes() -> Classification:
    task = Classification()
    task.fit(["a", "b"])
    return task


def trains(model: torch.nn.Module, task: Any, batch: dict) -> None:
    loss = task.loss(model.train()(batch), batch)
    loss.backward()
    assert loss.dtype == torch.float32 and loss.isfinite()
    new = {id(parameter) for parameter in model.head.parameters()}
    assert {p.dtype for p in model.parameters() if id(p) in new} <= {torch.float32}
    assert {p.dtype for p in model.parameters() if id(p) not in new} == {torch.bfloat16}
    assert any(p.grad is not None and p.grad.any() for p in model.parameters())
    with torch.no_grad():
        task.predict(model.eval(), batch)


@pytest.mark.parametrize("pooling", [None, "mean"])
@pytest.mark.parametrize("family", ["vit", "resnet", "swin", "convnext"])
def test_images(family: str, pooling: str | None, backbone: Callable[..., HuggingFace],
                batch_of: Callable[..., dict], classes: Classification) -> None:
    batch = batch_of(family) | {"target": torch.tensor([0, 1, 1, 0])}
    trains(backbone(family, pooling=pooling, dtype="bfloat16").build(classes), classes, batch)
    assert batch["inputs"]["pixel_values"].dtype == torch.float32


@pytest.mark.parametrize("folder", ["tiny_whisper", "tiny_wav2vec2"])
def test_speech(folder: str, request: pytest.FixtureRequest, classes: Classification) -> None:
    backbone = HuggingFace(str(request.getfixturevalue(folder)), dtype="bfloat16")
    inputs, task = backbone.preprocessing.features(WAVES), Transcription(max_new_tokens=4)
    labels = [{"labels": ids, "text": ""} for ids in backbone.preprocessing.encode(["low", "high"])]
    trains(backbone.build(task), task, {"inputs": inputs, "target": task.stack(labels)})
    trains(backbone.build(classes), classes, {"inputs": inputs, "target": torch.tensor([0, 1])})


def test_image_text(tiny_clip: Any, classes: Classification) -> None:
    model = HuggingFace(str(tiny_clip), dtype="bfloat16").build(classes, "embedding")
    assert model({"inputs": {"pixel_values": torch.randn(2, 3, 32, 32)}}).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_detector(dtype: torch.dtype, tmp_path: Any) -> None:
    """Boxes are matched and given in float32: there are no half-precision distances."""
    hf.YolosForObjectDetection(hf.YolosConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        image_size=[64, 64], patch_size=16, num_detection_tokens=4)).save_pretrained(tmp_path)
    task = Detection()
    task.fit([[Box("a", (0, 0, 1, 1))]])
    target = [task.encode([Box("a", (4, 8, 52, 40))], "")]
    batch = {"inputs": {"pixel_values": torch.randn(1, 3, 64, 64)}, "target": target}
    model = HuggingFace(str(tmp_path)).build(task).to(dtype)
    loss = task.loss(model(batch), batch)
    loss.backward()
    assert loss.isfinite()
    (found,) = task.predict(model.eval(), batch)
    assert found["boxes"].dtype == torch.float32
