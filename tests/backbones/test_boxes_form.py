from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers as hf

from ftlab.backbones.forms.boxes import TransformersDetector
from ftlab.backbones.huggingface import HuggingFace
from ftlab.backbones.pretrained import quiet
from ftlab.data.box_augment import BoxAugment
from ftlab.data.object_detection import ObjectDetection
from ftlab.errors import Incompatible
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.techniques.linear_probe import LinearProbe
from ftlab.techniques.lora import LoRA
from ftlab.training.fit import Run
from ftlab.training.run import execute
from ftlab.training.settings import TrainerSettings

_RESNET = {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1],
           "layer_type": "basic"}
_LAYERS = {"d_model": 16, "decoder_layers": 2, "decoder_ffn_dim": 24, "encoder_ffn_dim": 24,
           "decoder_attention_heads": 2, "encoder_attention_heads": 2, "num_labels": 5}
DETECTORS = {
    "yolos": lambda: hf.YolosForObjectDetection(hf.YolosConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        image_size=[64, 64], patch_size=16, num_detection_tokens=8, num_labels=5,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)),
    "detr": lambda: hf.DetrForObjectDetection(hf.DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, encoder_layers=2,
        backbone_config=hf.ResNetConfig(**_RESNET, out_features=["stage4"]), num_queries=8,
        dropout=0.0, **_LAYERS)),
    "rt_detr": lambda: hf.RTDetrForObjectDetection(hf.RTDetrConfig(
        backbone_config=hf.RTDetrResNetConfig(**_RESNET,
                                              out_features=["stage2", "stage3", "stage4"]),
        encoder_hidden_dim=16, encoder_in_channels=[8, 16, 16], decoder_in_channels=[16] * 3,
        num_queries=8, num_denoising=4, **_LAYERS)),
}
PROCESSORS = {"yolos": hf.YolosImageProcessor, "detr": hf.DetrImageProcessor,
              "rt_detr": hf.RTDetrImageProcessor}


class Boxes:
    form = "boxes"
    auto_classes = ("AutoModelForObjectDetection",)
    outputs = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        path = tmp_path_factory.getbasetemp() / "detectors" / name
        if not path.exists():
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                DETECTORS[name]().save_pretrained(path)
        return path

    return make


@pytest.fixture(params=DETECTORS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def model(name: str, folder: Callable[[str], Path]) -> TransformersDetector:
    return HuggingFace(str(folder(name))).build(Boxes()).eval()


@pytest.fixture
def batch() -> dict:
    return {"inputs": {"pixel_values": torch.randn(2, 3, 64, 96)}, "target": [
        {"boxes": torch.tensor([[4.0, 8, 52, 40], [10, 10, 90, 64], [0, 0, 9, 9]]),
         "labels": torch.tensor([0, 2, 1]), "ignored": torch.tensor([False, False, True])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long),
         "ignored": torch.zeros(0, dtype=torch.bool)}]}


def shipped(folder: Path) -> dict[str, torch.Tensor]:
    with quiet():
        return dict(hf.AutoModelForObjectDetection.from_pretrained(folder).named_parameters())


def test_loss__equals_transformers(model: TransformersDetector, batch: dict) -> None:
    labels = [  # centre, width and height as fractions of 96 and 64
        {"class_labels": torch.tensor([0, 2]),
         "boxes": torch.tensor([[28 / 96, 24 / 64, 48 / 96, 32 / 64],
                                [50 / 96, 37 / 64, 80 / 96, 54 / 64]])},
        {"class_labels": torch.zeros(0, dtype=torch.long), "boxes": torch.zeros(0, 4)}]
    expected = model.network(**batch["inputs"], labels=labels).loss
    assert model(batch)["losses"]["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert model({"inputs": batch["inputs"]})["losses"] == {}


def test_detections__equal_the_processor_s(name: str, model: TransformersDetector,
                                           batch: dict) -> None:
    with torch.no_grad():
        found = model(batch)["detections"]
        output = model.network(**batch["inputs"])
    expected = PROCESSORS[name]().post_process_object_detection(
        output, threshold=0.0, target_sizes=torch.tensor([[64, 96]] * 2))
    for one, other in zip(found, expected, strict=True):
        order = other["scores"].argsort(descending=True, stable=True)
        best = len(order)
        assert best == 8
        torch.testing.assert_close(one["scores"][:best], other["scores"][order])
        torch.testing.assert_close(one["boxes"][:best], other["boxes"][order])
        assert torch.equal(one["labels"][:best], other["labels"][order])


def test_head__is_the_class_predictors(name: str, model: TransformersDetector,
                                       folder: Callable[[str], Path]) -> None:
    stored = shipped(folder(name))
    new = {n.removeprefix("network.") for n, _ in model.head.named_parameters()}
    for path, parameter in model.network.named_parameters():
        assert path in new or torch.equal(parameter, stored[path]), path
    assert all("class" in path or "score" in path for path in new)
    held = [n for part in (*model.blocks, model.head) for n, _ in part.named_parameters()]
    assert sorted(held) == sorted(n for n, _ in model.named_parameters())
    assert any("bbox" in path for block in model.blocks for path in block.paths) or name == "detr"


def test_head__is_new_where_the_classes_are_as_many(name: str, folder: Callable[[str], Path]) -> None:
    class Five(Boxes):
        outputs = 5

    stored = shipped(folder(name))
    model = HuggingFace(str(folder(name))).build(Five())
    for path, parameter in model.head.named_parameters():
        if path.endswith("weight"):
            assert not torch.equal(parameter, stored[path.removeprefix("network.")])


TECHNIQUES = {
    "full": lambda name: FullFineTuning(lr=3e-3),
    "lora": lambda name: LoRA(lr=1e-2),
    "probe": lambda name: LinearProbe(lr=3e-2),
}


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_run__trains(name: str, technique: str, folder: Callable[[str], Path], rectangles: Path,
                     tmp_path: Path) -> None:
    data = ObjectDetection(str(rectangles), image_size=64, augment=BoxAugment("none"))
    events: list[dict] = []
    run = Run(HuggingFace(str(folder(name))), data, TECHNIQUES[technique](name),
              TrainerSettings(max_epochs=3), 0, "val/loss", tmp_path)
    metrics = execute(run, events.append)
    course = [event["metrics"]["train/epoch_loss"] for event in events
              if event["event"] == "metrics" and "train/epoch_loss" in event["metrics"]]
    assert min(course[1:]) < course[0]
    assert 0 <= metrics["test/map_50"] <= 1


def test_refuses_what_is_no_detector(save: Callable[[str], Path]) -> None:
    with pytest.raises(Incompatible, match="vit is no detector"):
        HuggingFace(str(save("vit"))).build(Boxes())
