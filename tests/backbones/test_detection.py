from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers as hf
from detection import DETECTORS

from ftlab.backbones.heads.detection import TransformersDetector
from ftlab.backbones.huggingface import HuggingFace
from ftlab.backbones.load_pretrained import quiet
from ftlab.data.box_augment import BoxAugment
from ftlab.data.object_detection import ObjectDetection
from ftlab.errors import Incompatible
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.techniques.linear_probe import LinearProbe
from ftlab.techniques.lora import LoRA
from ftlab.training.execute import execute
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings

UNRENDERED = True
PROCESSORS = {"yolos": hf.YolosImageProcessor, "detr": hf.DetrImageProcessor,
              "rt_detr": hf.RTDetrImageProcessor}


class Boxes:
    output_type = "boxes"
    auto_classes = ("AutoModelForObjectDetection",)
    outputs = 3


@pytest.fixture
def folder(detector_folder: Callable[[str], Path]) -> Callable[[str], Path]:
    return detector_folder


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
