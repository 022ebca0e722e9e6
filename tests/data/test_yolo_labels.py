"""YOLO's labels say what COCO's do, and what is wrong with them is said with file and line."""

import contextlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from detection import Object, random_objects, write_coco, write_yolo
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ftlab.backbones.torchvision_detector import Keep, Levels, TorchvisionDetector
from ftlab.data.box_augment import BoxAugment
from ftlab.data.object_detection import ObjectDetection
from ftlab.errors import InputError
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.training.execute import execute
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings

Scenes = dict[str, Sequence[Object]]


def scenes(begin: int, count: int) -> Scenes:
    return {f"{i:02}": random_objects(np.random.default_rng(i)) for i in range(begin, begin + count)}


def both(root: Path) -> tuple[ObjectDetection, ObjectDetection]:
    """The same data as YOLO's files and as COCO's."""
    splits = {"train": scenes(0, 12), "val": scenes(20, 4), "test": {**scenes(40, 6), "empty": []}}
    files = [str(write_coco(root / "coco" / key, images)) for key, images in splits.items()]
    settings: dict[str, Any] = {"augment": BoxAugment("none"), "batch_size": 4}
    return (ObjectDetection(str(write_yolo(root / "yolo", splits)), **settings),
            ObjectDetection(*files, **settings))


def loaded(file: Path, **settings: Any) -> ObjectDetection:
    data = ObjectDetection(str(file), **settings)
    data.load()
    return data


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_yolo(tmp_path, {"train": scenes(0, 6), "val": scenes(10, 3), "test": scenes(20, 3)})


def test_yolo__is_the_same_data_as_coco(tmp_path: Path) -> None:
    yolo, coco = both(tmp_path)
    yolo.load()
    coco.load()
    for split, examples in yolo.splits.items():
        other = coco.splits[split]
        assert (examples.ids, examples.labels) == (other.ids, other.labels)
    assert yolo.fingerprint == coco.fingerprint
    assert yolo.notes == coco.notes == []


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' own
def test_yolo__a_run_has_coco_s_scores_by_pycocotools(tiny_trunk: Path, tmp_path: Path) -> None:
    found = []
    for name, module in zip(("yolo", "coco"), both(tmp_path), strict=True):
        backbone = TorchvisionDetector(
            "retinanet", "shufflenet_v2_x0_5", str(tiny_trunk), image_size=64, keep=Keep(most=20, score=0.01),
            levels=Levels(strides=(16,), width=16, anchor_scales=(1.0, 2.0), aspect_ratios=(1.0,)))
        run = Run(backbone, module, FullFineTuning(lr=3e-3), TrainerSettings(max_epochs=6), 7, "val/loss",
                  tmp_path / name)
        (tmp_path / name).mkdir(exist_ok=True)
        found.append(execute(run, lambda event: None))
    names = [name for name in found[0] if name.startswith("test/")]
    assert {name: found[0][name] for name in names} == {name: found[1][name] for name in names}
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(tmp_path / "coco" / "test" / "instances.json"))
        numbers = {image["file_name"]: image["id"] for image in truth.dataset["images"]}
        kinds = {kind["name"]: kind["id"] for kind in truth.dataset["categories"]}
        for entry in truth.dataset["annotations"]:
            entry |= {"area": entry["bbox"][2] * entry["bbox"][3], "id": entry["id"] + 1}
        truth.createIndex()
        detections = [
            {"image_id": numbers[row["id"]], "category_id": kinds[box["label"]], "score": score,
             "bbox": [box["box"][0], box["box"][1], box["box"][2] - box["box"][0], box["box"][3] - box["box"][1]]}
            for row in pq.read_table(tmp_path / "yolo" / "predictions" / "test.parquet").to_pylist()
            for box, score in zip(row["prediction"], row["scores"], strict=True)]
        judge = COCOeval(truth, truth.loadRes(detections), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    assert judge.stats[1] > 0
    assert found[0]["test/map"] == pytest.approx(judge.stats[0], abs=1e-6)
    assert found[0]["test/map_50"] == pytest.approx(judge.stats[1], abs=1e-6)


def test_polygons__are_their_boxes(data: Path) -> None:
    label = next((data.parent / "labels" / "train").iterdir())
    label.write_text("0 0.25 0.5 0.5 0.25 0.75 0.5 0.5 0.75\n1 0.5 0.5 0.25 0.25\n")
    module = loaded(data)
    assert "1 objects are polygons, of which the boxes are taken" in module.notes
    boxes = module.splits["train"].labels[module.splits["train"].ids.index(f"{label.stem}.png")]
    assert [box.corners for box in boxes] == [(16, 16, 48, 48), (24, 24, 40, 40)]


def test_rounded_digits__lie_in_the_image(data: Path) -> None:
    label = next((data.parent / "labels" / "train").iterdir())
    label.write_text("0 0.83335 0.5 0.3334 1.00004\n")
    module = loaded(data)
    boxes = module.splits["train"].labels[module.splits["train"].ids.index(f"{label.stem}.png")]
    x1, *rest = boxes[0].corners
    assert (x1, rest) == (pytest.approx(0.66665 * 64), [0, 64, 64])


def test_lists_of_files_and_several_folders(data: Path) -> None:
    images = sorted((data.parent / "images" / "train").iterdir())
    (data.parent / "train.txt").write_text("".join(f"./images/train/{path.name}\n" for path in images[:4]))
    content = data.read_text()
    data.write_text(content.replace("train: images/train", "train: train.txt"))
    assert len(loaded(data).splits["train"]) == 4
    data.write_text(content.replace("train: images/train", "train: [images/train, images/test]"))
    assert len(loaded(data).splits["train"]) == 9
    data.write_text(content.replace("train: images/train", "train: ../images/train"))  # as Roboflow has it
    assert len(loaded(data).splits["train"]) == 6
    names = "names: [blue, red]\n"
    data.write_text(content.partition("names:")[0].replace("test: images/test\n", "") + names)
    module = loaded(data)
    assert module.task.summary()["classes"] == ["blue", "red"]
    assert sum(map(len, module.splits.values())) == 9  # test is carved from train


def line(text: str) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        (file.parent / "labels" / "train" / "03.txt").write_text(f"0 0.5 0.5 0.2 0.2\n{text}\n")
    return change


def settings(old: str, new: str) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))
    return change


@pytest.mark.parametrize(("change", "what", "mend"), [
    (line("7 0.5 0.5 0.2 0.2"), r"labels/train/03.txt, line 2: there is no class 7", "from 0 to 1"),
    (line("0 0.5 0.5 0.2"), "03.txt, line 2: 3 numbers behind the class, where a box has 4", "CLASS CX CY"),
    (line("0 0.5 0.5 0.2 0.2 0.9"), "03.txt, line 2: 5 numbers", "CLASS CX CY"),
    (line("red 0.5 0.5 0.2 0.2"), r"line 2: 'red 0.5 0.5 0.2 0.2' is not numbers", "CLASS CX CY"),
    (line("0 32 20 10 10"), "line 2: 32 is no share of the image's size", "divide pixels"),
    (line("0 0.9 0.5 0.4 0.2"), r"line 2: the box .* of 'blue' lies outside the image of 64x64", "bad_boxes"),
    (line("0 0.5 0.5 0 0.2"), r"line 2: the box .* has no area", "bad_boxes"),
    (line("0 nan 0.5 0.1 0.2"), r"line 2: the box .* has no area", "bad_boxes"),
    (settings("train: images/train", "train: images/gone"), "train names .*gone, which does not exist", "path"),
    (settings("train: images/train\n", ""), "has no train", "add train"),
    (settings("names:", "nams:"), "has no names of classes", "data.yaml"),
    (settings("  0: blue", "  zero: blue"), "names has 'zero' where a class has its number", "mend"),
    (settings("path: .", "path: [1"), "not YAML", "mend"),
    (settings("path: .", "path: 3"), "path is 3, not a path", "mend"),
], ids=lambda value: value if isinstance(value, str) and " " not in value else "")
def test_refuses__with_file_and_line(change: Callable[[Path], None], what: str, mend: str, data: Path) -> None:
    change(data)
    with pytest.raises(InputError, match=what) as caught:
        loaded(data)
    assert mend in caught.value.mend
    assert "\n" not in caught.value.what + caught.value.mend


def test_bad_boxes__are_clipped(data: Path) -> None:
    line("0 0.9 0.5 0.4 0.2")(data)
    assert any("1 boxes outside" in note for note in loaded(data, bad_boxes="clip").notes)


def test_predicts__all_images_of_a_data_yaml(data: Path) -> None:
    module = loaded(data)
    assert len(module.read_new(str(data))) == 12


def test_format__is_said_or_seen(data: Path) -> None:
    other = data.rename(data.parent / "data.txt")
    assert len(loaded(other, format="yolo").splits["train"]) == 6
    with pytest.raises(InputError, match="not JSON"):
        loaded(other)
    assert json.dumps(loaded(other, format="yolo").notes) == "[]"
