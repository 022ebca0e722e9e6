"""Detectors, exported and loaded by their own libraries, without ftlab."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import transformers
from exported import every_export
from matrix import World
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForObjectDetection

from ftlab.backbones.detector_builders import FAMILIES, Levels
from ftlab.backbones.heads.detection_model import Keep
from ftlab.backbones.huggingface import HuggingFace
from ftlab.backbones.torchvision_detector import TorchvisionDetector
from ftlab.data.box_augment import BoxAugment
from ftlab.data.object_detection import ObjectDetection
from ftlab.exports.loading_code import executed
from ftlab.exports.restore_run import Restored
from ftlab.exports.verify import Sample
from ftlab.tasks.boxes import same_boxes

TRANSFORMERS = ("yolos", "detr", "rt_detr")
SMALL = Levels(strides=(16, 32, 64), width=32, aspect_ratios=(1.0, 2.0))  # the trunk ends at 32
CASES = [*((name, "FullFineTuning", False) for name in (*FAMILIES, *TRANSFORMERS)),
         ("fasterrcnn", "LoRA", True),
         *((name, "LoRA", False) for name in ("yolos", "rt_detr"))]
Case = tuple[str, str, bool]


def make(name: str, fixture: Callable[[str], Any]) -> World:
    """A detector on images of rectangles that are not of its size, and not square for it."""
    data = str(fixture("rectangles"))
    trunk, folder = str(fixture("tiny_trunk")), fixture("detector_folder")

    def world() -> tuple[Any, ObjectDetection]:
        backbone: Any
        size: Any = (64, 96)
        if name in TRANSFORMERS:
            backbone = HuggingFace(str(folder(name)))
        else:
            backbone = TorchvisionDetector(name, "shufflenet_v2_x0_5", trunk, levels=SMALL,
                                           image_size=64, keep=Keep(score=0.0, most=6))
            size = 64 if name == "ssdlite" else (64, 128)
        return backbone, ObjectDetection(data, image_size=size, augment=BoxAugment("none"),
                                         batch_size=8)
    return world


@pytest.fixture(scope="module")
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
             ) -> dict[Case, dict[str, Any]]:
    """Every case: the stored predictions of some examples, and what the export gives alone."""
    def known(_: Restored, work: Path, chosen: list[Sample]) -> dict[str, Any]:
        stored = {row["id"]: row for row in
                  pq.read_table(work / "predictions" / "test.parquet").to_pylist()}
        return {"stored": [stored[each.name] for each in chosen],
                "images": [each.raw for each in chosen]}

    return every_export(CASES, lambda name: make(name, request.getfixturevalue),
                        tmp_path_factory.mktemp("exports"), known, inputs=False)


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_finds_without_ftlab_what_the_run_stored(
    case: Case, exported: dict[Case, dict[str, Any]]
) -> None:
    found = exported[case]
    assert "error" not in found, found["error"]
    for (boxes, scores), stored in zip(found["told"], found["stored"], strict=True):
        assert stored["prediction"]
        assert same_boxes({"prediction": boxes[0], "scores": scores[0]}, stored, 1e-3)
        assert not same_boxes({"prediction": boxes[0], "scores": [s + 0.01 for s in scores[0]]},
                              stored, 1e-3)


TRUNKS = ("swin_t", "googlenet", "regnet_y_400mf")


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("architecture", FAMILIES)
def test_lines__build_the_same_network_on_any_trunk(architecture: str, trunk: str) -> None:
    backbone = TorchvisionDetector(architecture, trunk, None, levels=Levels((16, 32, 64, 128), 32),
                                   image_size=64)
    same_parts(backbone)


@pytest.mark.parametrize("whole", [
    "fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn", "fcos_resnet50_fpn", "ssd300_vgg16"])
def test_lines__build_the_same_whole_network(whole: str) -> None:
    same_parts(TorchvisionDetector(whole, keep=Keep(0.1, 0.3, 7), proposals=40))


class Boxes:
    output_type = "boxes"
    auto_classes = ()
    outputs = 3


def same_parts(backbone: TorchvisionDetector) -> None:
    """Same tensors, modules, anchors and limits, of a network that was never filled."""
    model = backbone.build(Boxes(), meta=True)
    plain = backbone.export_code(model, Boxes(), (64, 96))
    # on the meta device, but for a trunk that computes its widths with tensors
    with torch.device("cpu" if "regnet" in backbone.trunk else "meta"), torch.random.fork_rng(devices=[]):
        other = executed(["import torch", *plain.build.imports], plain.build.code, {})["model"]
    assert {name: x.shape for name, x in plain.state.items()} == {
        name: x.shape for name, x in other.state_dict().items()}
    ours = model.network.network
    assert [str(module) for module in parts(ours)] == [str(module) for module in parts(other)]
    for name in vars(ours):
        if name.endswith(("thresh", "per_img")):
            assert getattr(ours, name) == getattr(other, name), name
    transform = other.transform
    assert (transform.fixed_size, transform.size_divisible) == ((96, 64), backbone._multiple)
    assert (*transform.image_mean, *transform.image_std) == (
        *backbone.preprocessing.mean, *backbone.preprocessing.std)
    if hasattr(ours, "rpn"):
        assert ours.rpn._pre_nms_top_n == other.rpn._pre_nms_top_n
        assert ours.rpn._post_nms_top_n == other.rpn._post_nms_top_n
        assert ours.roi_heads.score_thresh == other.roi_heads.score_thresh
        assert ours.roi_heads.detections_per_img == other.roi_heads.detections_per_img


def parts(network: Any) -> list[torch.nn.Module]:
    """The modules that compute, in their order, and those that make anchors."""
    kept = (torch.nn.Conv2d, torch.nn.Linear, torch.nn.BatchNorm2d, torch.nn.GroupNorm)
    anchors = ("AnchorGenerator", "DefaultBoxGenerator", "MultiScaleRoIAlign")
    return [module for module in network.modules()
            if isinstance(module, kept) or type(module).__name__ in anchors]


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_folder__is_what_transformers_loads(name: str, exported: dict[Case, dict[str, Any]]) -> None:
    """Its own Auto classes and the architecture's own way from outputs to boxes."""
    found = exported[name, "FullFineTuning", False]
    assert "error" not in found, found["error"]
    network = AutoModelForObjectDetection.from_pretrained(found["folder"]).eval()
    processor = AutoImageProcessor.from_pretrained(found["folder"])
    assert network.config.id2label == {0: "blue", 1: "red"}
    for path, stored in zip(found["images"], found["stored"], strict=True):
        image = Image.open(path).convert("RGB")
        inputs = processor(image, return_tensors="pt")
        assert inputs["pixel_values"].shape[-2:] == (64, 96)
        with torch.no_grad():
            outputs = network(**inputs)
        told = processor.post_process_object_detection(
            outputs, threshold=0.0, target_sizes=[image.size[::-1]])[0]
        boxes = [{"label": network.config.id2label[label], "box": box} for label, box
                 in zip(told["labels"].tolist(), told["boxes"].tolist(), strict=True)]
        best = {key: stored[key][:len(boxes)] for key in ("prediction", "scores")}  # RT-DETR: half
        assert boxes
        assert same_boxes({"prediction": boxes, "scores": told["scores"].tolist()}, best, 1e-3)


@pytest.mark.parametrize("case", [(name, "FullFineTuning", False) for name in TRANSFORMERS]
                         + [("yolos", "LoRA", False)], ids=lambda case: "-".join(map(str, case)))
def test_pipeline__finds_what_the_run_stored(case: Case, exported: dict[Case, dict[str, Any]]
                                             ) -> None:
    """By the shortest way, which gives corners in whole pixels."""
    found = exported[case]
    assert "error" not in found, found["error"]
    pipe = transformers.pipeline("object-detection", model=str(found["folder"]))
    for path, stored in zip(found["images"], found["stored"], strict=True):
        given = sorted(pipe(str(path), threshold=0.0), key=lambda one: -one["score"])
        expected = zip(stored["prediction"], stored["scores"], strict=True)
        expected = sorted(expected, key=lambda one: -one[1])[:len(given)]
        assert [one["score"] for one in given] == pytest.approx([s for _, s in expected], abs=1e-3)
        for one, (box, _) in zip(given, expected, strict=True):
            assert one["label"] == box["label"]
            corners = [one["box"][name] for name in ("xmin", "ymin", "xmax", "ymax")]
            assert corners == pytest.approx(box["box"], abs=1.01)
