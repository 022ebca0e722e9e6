"""Detectors, exported and loaded by their own libraries, without ftlab."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from exported import restored, without_ftlab
from matrix import World

from ftlab.backbones.detector_networks import FAMILIES, Levels
from ftlab.backbones.forms.detection_model import Keep
from ftlab.backbones.huggingface import HuggingFace
from ftlab.backbones.torchvision_detector import TorchvisionDetector
from ftlab.data.box_augment import BoxAugment
from ftlab.data.object_detection import ObjectDetection
from ftlab.exports.agreement import samples
from ftlab.exports.export import write_model
from ftlab.tasks.boxes import same_boxes

TRANSFORMERS = ("yolos", "detr", "rt_detr")
SMALL = Levels(strides=(16, 32), width=32, aspect_ratios=(0.5, 1.0))
CASES = [*((name, "FullFineTuning", False) for name in (*FAMILIES, *TRANSFORMERS)),
         *((name, "LoRA", True) for name in ("fasterrcnn", "ssdlite", "yolos", "rt_detr")),
         *((name, "LoRA", False) for name in TRANSFORMERS)]
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
            size = 64 if name == "ssdlite" else size
        return backbone, ObjectDetection(data, image_size=size, augment=BoxAugment("none"),
                                         batch_size=8)
    return world


@pytest.fixture(scope="module")
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
             ) -> dict[Case, dict[str, Any]]:
    """Every case: the stored predictions of some examples, and what the export gives alone."""
    root = tmp_path_factory.mktemp("exports")
    folders: dict[Case, Path] = {}
    tried: dict[Case, Any] = {}
    found: dict[Case, dict[str, Any]] = {}
    for number, case in enumerate(CASES):
        name, technique, merged = case
        work, folder = root / f"run{number}", root / f"export{number}"
        work.mkdir()
        folder.mkdir()
        model = restored(make(name, request.getfixturevalue), technique, work)
        stored = {row["id"]: row for row in
                  pq.read_table(work / "predictions" / "test.parquet").to_pylist()}
        chosen = samples(model)
        try:
            _, form, _ = write_model(model, folder, merged)
        except Exception as error:  # noqa: BLE001  the test of this case shows it
            found[case] = {"error": repr(error)}
            continue
        found[case] = {"form": form, "stored": [stored[s.name] for s in chosen], "folder": folder}
        folders[case], tried[case] = folder, [(s.raw, None) for s in chosen]
    for case, given in without_ftlab(folders, tried, root).items():
        found[case] |= given
    return found


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
