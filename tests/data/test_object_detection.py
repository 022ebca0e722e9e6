import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from detection import COLOURS, draw, write_coco, write_voc
from PIL import Image

from ftlab.backbones.preprocessing import ImagePreprocessing
from ftlab.data.box_augment import BoxAugment, BoxDataset, Stretch
from ftlab.data.object_detection import ObjectDetection
from ftlab.data.splits import Split
from ftlab.errors import Incompatible, InputError
from ftlab.tasks.boxes import Box

ONE = {f"{i}": [("red", 4.0, 8.0, 24.0, 40.0)] for i in range(6)}


class Reader:
    """Stands for a backbone: reads images of a size."""

    def __init__(self, fixed: bool = False, multiple: int = 1) -> None:
        self.preprocessing = ImagePreprocessing("images", (32, 48), (0.5,) * 3, (0.25,) * 3,
                                                fixed_size=fixed, multiple=multiple)


def voc(tmp_path: Path, images: dict, **settings) -> ObjectDetection:
    return ObjectDetection(str(write_voc(tmp_path / "voc", images)),
                           split=Split(validation=0.2, test=0.2), **settings)


def labels(data: ObjectDetection) -> list[list[Box]]:
    return [boxes for split in data.splits.values() for boxes in split.labels]


def test_voc__lists_are_the_splits(rectangles: Path) -> None:
    data = ObjectDetection(str(rectangles))
    data.load()
    assert [len(split) for split in data.splits.values()] == [24, 8, 8]
    assert data.splits["validation"].ids == [f"{i:03}" for i in range(24, 32)]
    assert data.task.summary()["classes"] == ["blue", "red"]
    assert data.notes == []


def test_coco__says_the_same_as_voc(objects, tmp_path: Path) -> None:
    images = {f"{i:02}": objects(i) for i in range(10)} | {"empty": []}
    carved = Split(validation=0.2, test=0.2)
    both = [ObjectDetection(str(write_voc(tmp_path / "voc", images)), split=carved),
            ObjectDetection(str(write_coco(tmp_path / "coco", images)), split=carved)]
    found = []
    for data in both:
        data.load()
        found.append({Path(place).stem: boxes for split in data.splits.values()
                      for place, boxes in zip(split.ids, split.labels, strict=True)})
    assert found[0] == found[1]
    assert found[0]["empty"] == []


def test_coco__images_elsewhere_and_crowds(tmp_path: Path) -> None:
    path = write_coco(tmp_path / "coco", ONE)
    content = json.loads(path.read_text())
    for each in content["annotations"][1:]:
        each["iscrowd"] = 1
    moved = tmp_path / "annotations.json"
    moved.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"annotations.json, image 100: no such file"):
        ObjectDetection(str(moved)).load()
    data = ObjectDetection(str(moved), str(path), str(path), images=str(path.parent))
    data.load()
    assert [box.ignored for boxes in data.splits["train"].labels for box in boxes] == \
        [False] + [True] * 5


@pytest.mark.parametrize("kind", [str, float, lambda number: f"{number}.0"], ids=["text", "float", "texts of floats"])
def test_coco__ids_are_one_in_all_spellings(kind: Callable, tmp_path: Path) -> None:
    path = write_coco(tmp_path, ONE)
    plain = ObjectDetection(str(path))
    plain.load()
    content = json.loads(path.read_text())
    for each in content["annotations"]:
        each["image_id"] = kind(each["image_id"])
    for each in content["categories"]:
        each["id"] = kind(each["id"])
    path.write_text(json.dumps(content))
    mixed = ObjectDetection(str(path))
    mixed.load()
    assert mixed.splits["train"].labels == plain.splits["train"].labels
    content["images"][1]["id"] = kind(content["images"][0]["id"])
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="occurs twice"):
        ObjectDetection(str(path)).load()


def test_voc__difficult_objects_are_ignored(tmp_path: Path) -> None:
    images = {f"{i}": [("red", 2, 2, 20, 20), ("blue", 30, 30, 50, 50)] for i in range(6)}
    data = ObjectDetection(str(write_voc(tmp_path, images, difficult=["blue"])))
    data.load()
    assert data.task.summary()["train_counts"] == {"red": len(data.splits["train"])}


def break_image(root: Path) -> None:
    (root / "JPEGImages" / "3.png").write_bytes(b"no image")


def break_xml(root: Path) -> None:
    (root / "Annotations" / "3.xml").write_text("<annotation><object>")


def replace(old: str, new: str):
    def change(root: Path) -> None:
        path = root / "Annotations" / "3.xml"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
    return change


def add_list(root: Path) -> None:
    (root / "ImageSets" / "Main" / "train.txt").write_text("3\n99\n")


def other_list(root: Path) -> None:
    (root / "ImageSets" / "Main" / "val.txt").write_text("3\n")


VOC = {
    "outside": (replace("<xmax>24.0", "<xmax>65"),
                r"3.xml, object 1: the box \(4, 8, 65, 40\) of 'red' lies outside .* 64x64"),
    "negative": (replace("<xmin>4.0", "<xmin>-1"), "lies outside"),
    "no area": (replace("<ymax>40.0", "<ymax>8"), r"3.xml, object 1: the box .* has no area"),
    "turned": (replace("<ymax>40.0", "<ymax>2"), "has no area"),
    "not a number": (replace("<ymax>40.0", "<ymax>nan"), "has no area"),
    "text": (replace("<ymax>40.0", "<ymax>low"), r"3.xml, object 1: its box is .*four numbers"),
    "no corner": (replace("<ymax>40.0</ymax>", ""), "four numbers"),
    "no class": (replace("<name>red</name>", ""), "3.xml, object 1: it has no class"),
    "other size": (replace("<width>64", "<width>128"), r"an image of 128x64, and .* has 64x64"),
    "size in words": (replace("<width>64", "<width>abc"), "3.xml: its width is 'abc'"),
    "endless": (replace("<height>64", "<height>inf"), "3.xml: its height is 'inf'"),
    "xml": (break_xml, "3.xml is not well-formed XML"),
    "picture": (break_image, "3.png does not decode"),
    "no picture": (lambda root: (root / "JPEGImages" / "3.png").unlink(),
                   "3.xml: its image is missing"),
    "no annotation": (add_list, r"train.txt: 99 has no annotation"),
    "no list": (other_list, r"no ImageSets/Main/train.txt"),
}


@pytest.mark.parametrize("case", VOC)
def test_voc__bad_input(case: str, tmp_path: Path) -> None:
    change, message = VOC[case]
    root = write_voc(tmp_path / "voc", ONE)
    change(root)
    with pytest.raises(InputError, match=message) as error:
        ObjectDetection(str(root)).load()
    assert "\n" not in error.value.what
    assert error.value.mend


@pytest.mark.parametrize("layout", ["voc", "coco"])
def test_bad_boxes_of_an_image__are_named_together(layout: str, tmp_path: Path) -> None:
    write = write_voc if layout == "voc" else write_coco
    source = write(tmp_path, ONE | {"bad": [("red", 4, 4, 4, 4), ("red", 2, 2, 20, 20),
                                            ("red", 9, 9, 9, 30)]})
    with pytest.raises(InputError, match=r"2 (boxes|images) cannot be used") as error:
        ObjectDetection(str(source)).load()
    assert "(4, 4, 4, 4)" in error.value.what and "(9, 9, 9, 30)" in error.value.what


def set_in(part: str, **values):
    def change(content: dict) -> None:
        content[part][2].update(values)
    return change


COCO = {
    "no image": (set_in("annotations", image_id=7), "annotation 2: there is no image 7"),
    "no category": (set_in("annotations", category_id=7), "annotation 2: there is no category 7"),
    "outside": (set_in("annotations", bbox=[0, 0, 70, 5]), r"annotation 2: the box \(0, 0, 70, 5\)"),
    "no area": (set_in("annotations", bbox=[0, 0, 0, 5]), "annotation 2: .* has no area"),
    "three numbers": (set_in("annotations", bbox=[0, 0, 1]), "annotation 2: .*four numbers"),
    "no file": (set_in("images", file_name="gone.png"), "image 102: no such file"),
    "other size": (set_in("images", width=128, height=64),
                   r"image 102: it annotates an image of 128x64, and .* has 64x64"),
    "size in words": (set_in("images", width="wide"), "image 102: its width is 'wide'"),
    "twice": (set_in("images", id=101), "entry 3 of images: the id 101 occurs twice"),
    "no bbox": (lambda c: c["annotations"][2].pop("bbox"), "entry 3 of annotations: no 'bbox'"),
    "no list": (lambda c: c.pop("categories"), "has no list 'categories'"),
}


@pytest.mark.parametrize("case", COCO)
def test_coco__bad_input(case: str, tmp_path: Path) -> None:
    change, message = COCO[case]
    path = write_coco(tmp_path, ONE)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message) as error:
        ObjectDetection(str(path)).load()
    assert str(path) in error.value.what


@pytest.mark.parametrize("layout", ["voc", "coco"])
@pytest.mark.parametrize("orientation", [1, 6, 8, 3])
def test_boxes_of_the_image_as_it_lies__are_refused(layout: str, orientation: int,
                                                    tmp_path: Path) -> None:
    """An annotation tool that knows no EXIF names the sides of the file, 64 x 32."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    write = write_voc if layout == "voc" else write_coco
    source = write(tmp_path, {f"{i}": [("red", 40, 2, 60, 20)] for i in range(6)})
    for path in (tmp_path / "JPEGImages" if layout == "voc" else tmp_path).glob("*.png"):
        Image.new("RGB", (64, 32)).save(path, exif=exif)
    if layout == "voc":
        for file in (tmp_path / "Annotations").iterdir():
            file.write_text(file.read_text().replace("<height>64", "<height>32"))
    else:
        content = json.loads(source.read_text())
        for image in content["images"]:
            image |= {"width": 64, "height": 32, "file_name": f".\\{image['file_name']}"}
        source.write_text(json.dumps(content))
    data = ObjectDetection(str(source), split=Split(validation=0.2, test=0.2))
    if orientation in (1, 3):
        data.load()
        assert len(data.splits["train"]) == 4
        return
    with pytest.raises(InputError, match=r"of 64x32, and .* has 32x64, turned upright as "
                       "its EXIF data says") as error:
        data.load()
    assert "take the orientation out of its EXIF data" in error.value.mend


def test_coco__malformed_json(tmp_path: Path) -> None:
    path = write_coco(tmp_path, ONE)
    path.write_text(path.read_text()[:-5])
    with pytest.raises(InputError, match="not JSON"):
        ObjectDetection(str(path)).load()


def test_class_that_train_lacks(tmp_path: Path) -> None:
    images = ONE | {"5": [("red", 1, 1, 9, 9), ("green", 4, 8, 24, 40)]}
    root = write_voc(tmp_path, images, {"train": ["0", "1"], "val": ["2"], "test": ["3", "5"]})
    with pytest.raises(InputError, match=r"test split .* 5, object 2: class 'green' does not occur"):
        ObjectDetection(str(root)).load()


def test_split_without_objects(tmp_path: Path) -> None:
    root = write_voc(tmp_path, ONE | {"5": []}, {"train": ["0"], "val": ["1"], "test": ["5"]})
    with pytest.raises(InputError, match=r"test split of .*: no image has an object"):
        ObjectDetection(str(root)).load()


@pytest.mark.parametrize(("policy", "kept", "note"), [
    ("drop", [("red", 0, 0, 9, 9)], "3 boxes outside their image or of no area dropped"),
    ("clip", [("red", 0, 0, 9, 9), ("red", 50, 50, 64, 60)],
     "1 boxes outside their image or of no area cut to their image"),
])
def test_bad_boxes__policies(policy: str, kept: list, note: str, tmp_path: Path) -> None:
    bad = [("red", 0, 0, 9, 9), ("red", 50, 50, 70, 60), ("red", 7, 7, 7, 9), ("red", 80, 1, 90, 9)]
    root = write_voc(tmp_path, ONE | {"0": bad}, {"train": ["0"], "val": ["1"], "test": ["2"]})
    data = ObjectDetection(str(root), bad_boxes=policy)
    data.load()
    assert data.splits["train"].labels == [[Box(n, tuple(map(float, c))) for n, *c in kept]]
    assert note in data.notes


def test_classes__are_renamed(tmp_path: Path) -> None:
    data = voc(tmp_path, ONE, classes={"red": "cell"})
    data.load()
    assert {box.label for boxes in labels(data) for box in boxes} == {"cell"}
    with pytest.raises(InputError, match="class 'red' is not in classes"):
        voc(tmp_path, ONE, classes={"blue": "cell"}).load()


def test_batch__boxes_follow_the_size(tmp_path: Path) -> None:
    data = voc(tmp_path, ONE, batch_size=2, augment=BoxAugment("none"))
    data.connect(Reader(), seed=0)
    batch = next(iter(data.train_dataloader()))
    assert batch["inputs"]["images"].shape == (2, 3, 32, 48)
    assert batch["target"][0]["boxes"].tolist() == [[3.0, 4.0, 18.0, 20.0]]
    assert batch["target"][0]["scale"].tolist() == pytest.approx([64 / 48, 2.0])


def test_connect__refuses_another_size(tmp_path: Path) -> None:
    with pytest.raises(Incompatible, match="image_size 16x16"):
        voc(tmp_path, ONE, image_size=16).connect(Reader(fixed=True), seed=0)


@pytest.mark.parametrize(("size", "mend"), [(300, "288"), ((32, 60), "[32, 64]"), (8, "32"),
                                            (None, "[32, 64]")])
def test_connect__refuses_sizes_that_anchors_do_not_fit(size, mend: str, tmp_path: Path) -> None:
    with pytest.raises(Incompatible, match="multiples of 32") as error:
        voc(tmp_path, ONE, image_size=size).connect(Reader(multiple=32), seed=0)
    assert error.value.mend == f"set image_size: {mend}"
    voc(tmp_path, ONE, image_size=(64, 32)).connect(Reader(multiple=32), seed=0)


def test_voc__names_in_lists_may_have_spaces(tmp_path: Path) -> None:
    names = ["a b", "c 1", "d", "e", "f"]
    root = write_voc(tmp_path, {name: ONE["0"] for name in names})
    lists = root / "ImageSets" / "Main"
    for name, content in (("train", "\ufeffa b\nc 1\n"), ("val", "d  1\r\ne -1\n"),
                          ("test", "f\n\n")):
        (lists / f"{name}.txt").write_text(content, encoding="utf-8")
    data = ObjectDetection(str(root))
    data.load()
    assert [part.ids for part in data.splits.values()] == [["a b", "c 1"], ["d", "e"], ["f"]]
    (lists / "val.txt").write_bytes(b"\xe9\n")
    with pytest.raises(InputError, match=r"val.txt: it is not UTF-8"):
        ObjectDetection(str(root)).load()


def test_coco__with_a_byte_order_mark(tmp_path: Path) -> None:
    path = write_coco(tmp_path, ONE)
    path.write_text(path.read_text(), encoding="utf-8-sig")
    ObjectDetection(str(path)).load()


@pytest.mark.parametrize("policy", ["none", "flip", "crop", "ssd"])
@pytest.mark.parametrize("upside_down", [False, True])
def test_augment__boxes_stay_on_their_objects(policy: str, upside_down: bool, tmp_path: Path) -> None:
    draw(tmp_path / "x.png", [("red", 8, 8, 30, 50), ("blue", 36, 4, 60, 40)])
    target = {"boxes": torch.tensor([[8.0, 8, 30, 50], [36, 4, 60, 40]]),
              "labels": torch.tensor([0, 1]), "ignored": torch.tensor([False, True])}
    dataset = BoxDataset([tmp_path / "x.png"], [(64, 64)], [target], 0,
                         BoxAugment(policy, upside_down), Stretch((96, 96)), (0.0,) * 3)
    seen = set()
    for epoch in range(20):
        dataset.set_epoch(epoch)
        image, changed, *_ = dataset[0]
        again = dataset[0]
        assert torch.equal(image, again.input), "follows from seed, epoch and example"
        assert image.shape == (3, 96, 96)
        for box, label, ignored in zip(*(changed[n] for n in ("boxes", "labels", "ignored")),
                                       strict=True):
            assert ignored == (label == 1)
            x1, y1, x2, y2 = box.round().int().tolist()
            seen.add((x1, y1, x2, y2))
            if min(x2 - x1, y2 - y1) > 8 and policy != "ssd":  # whose colours change
                inside = image[:, y1 + 3:y2 - 3, x1 + 3:x2 - 3].flatten(1).float().mean(1)
                wanted = COLOURS[("red", "blue")[int(label)]]
                assert np.abs(inside.numpy() - wanted).max() < 12
    assert len(seen) > (2 if policy != "none" or upside_down else 1)
    assert target["boxes"].tolist()[0] == [8, 8, 30, 50], "the original is untouched"


def test_fingerprint__covers_the_boxes(tmp_path: Path) -> None:
    prints = []
    for x2 in (24.0, 25.0):
        data = voc(tmp_path / str(x2), ONE)
        path = Path(data.sources["train"]) / "Annotations" / "0.xml"
        path.write_text(path.read_text().replace("<xmax>24.0", f"<xmax>{x2}"))
        data.load()
        prints.append(data.fingerprint)
    assert prints[0] != prints[1]


@pytest.mark.parametrize("wrong", [{"image_size": 0}, {"bad_boxes": "keep"}, {"format": "darknet"}])
def test_settings__are_checked(wrong: dict) -> None:
    with pytest.raises(ValueError, match=str(next(iter(wrong)))):
        ObjectDetection("x", **wrong)


@pytest.mark.shared
def test_bccd__has_two_boxes_without_area(shared: Path) -> None:
    source = str(shared / "data" / "bccd" / "BCCD")
    with pytest.raises(InputError, match=r"BloodImage_003\d\d.xml, object \d+: .* has no area"):
        ObjectDetection(source).load()
    data = ObjectDetection(source, bad_boxes="drop")
    data.load()
    assert data.notes == ["2 boxes outside their image or of no area dropped"]
    assert [len(split) for split in data.splits.values()] == [205, 87, 72]
