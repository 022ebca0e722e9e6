"""Images that are kept: the same batches bit for bit, each image made once, within a bound."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detection import write_voc
from lightning.fabric.utilities import move_data_to_device
from PIL import Image
from torchvision.transforms.v2 import functional

from ftlab.backbones.preprocessing import ImagePreprocessing
from ftlab.data import image_cache, image_store
from ftlab.data.base import DataModule
from ftlab.data.box_augment import BoxAugment
from ftlab.data.image import ImageClassification
from ftlab.data.image_augment import ImageAugment
from ftlab.data.image_cache import ImageBatchRef, ImageCache
from ftlab.data.image_dataset import FitSize
from ftlab.data.object_detection import ObjectDetection
from ftlab.data.splits import Split, Subset
from ftlab.tasks.multi_label import MultiLabel
from ftlab.tasks.regression import Regression

CPU = torch.device("cpu")
MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)


class Reader:
    def __init__(self, size: int = 24) -> None:
        self.preprocessing = ImagePreprocessing("pixels", (size, size), MEAN, STD)


def table(folder: Path, modes: str, label: Callable[[int], object], side: int = 40) -> str:
    """30 noise images of several sizes, of each mode in turn (`L` is grey), and their labels."""
    draw = np.random.default_rng(0)
    lines = ["image,label"]
    for i in range(30):
        shape = (side + i % 3, side - i % 5, 3)
        noise = Image.fromarray(draw.integers(0, 256, shape, dtype=np.uint8))
        noise.convert({"L": "L", "C": "RGB"}[modes[i % len(modes)]]).save(folder / f"{i}.png")
        lines.append(f"{i}.png,{label(i)}")
    (folder / "all.csv").write_text("\n".join(lines) + "\n")
    return str(folder / "all.csv")


def classes(modes: str, **settings: Any) -> Callable[[Path], DataModule]:
    return lambda folder: ImageClassification(
        table(folder, modes, lambda i: "ab"[i % 2]), batch_size=7, **settings)


def boxes(augment: BoxAugment | None) -> Callable[[Path], DataModule]:
    def make(folder: Path) -> DataModule:
        images = {f"{i:02}": [("red", 4.0, 8.0, 24.0, 40.0)] for i in range(16)}
        data = ObjectDetection(str(write_voc(folder / "voc", images, size=(64, 48))),
                               batch_size=3, split=Split(validation=0.2, test=0.2))
        data.augment = augment  # type: ignore[assignment]
        return data

    return make


MODULES: dict[str, Callable[[Path], DataModule]] = {
    "colour": classes("C"),
    "grey": classes("L"),
    "both": classes("CL", augment=ImageAugment("none")),
    "subset": classes("LC", subset=Subset(limit=0.6)),
    "augmented": classes("C", augment=ImageAugment("standard")),
    "mixup": classes("L", augment=ImageAugment("none", mix="mixup")),
    "regression": lambda folder: ImageClassification(
        table(folder, "CL", lambda i: 10 + i * 0.5), task=Regression(), batch_size=7),
    "multi_label": lambda folder: ImageClassification(
        table(folder, "L", lambda i: "a|b" if i % 3 else "-"), task=MultiLabel(nothing="-"),
        batch_size=7),
    "boxes": boxes(None),
    "augmented_boxes": boxes(BoxAugment("flip")),
}


@pytest.fixture
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[DataModule, DataModule]:
    """A module that keeps its images, and a plain one."""
    ours = MODULES[request.param](tmp_path)
    plain = copy.deepcopy(ours)
    plain.plain = True
    for data in (ours, plain):
        data.connect(Reader(), seed=3)  # type: ignore[arg-type]  # all that is read of a backbone
    return ours, plain


def batches(data: DataModule) -> list[dict[str, Any]]:
    """Of two epochs, and of every split in evaluation; moved as Lightning moves them."""
    found = []
    for epoch in range(2):
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        found += list(loader)
        for split in ("train", "validation", "test"):
            found += list(data.eval_loader(split))  # type: ignore[arg-type]
    return [move_data_to_device(batch, CPU) for batch in found]


def assert_equal(ours: Any, plain: Any) -> None:
    assert type(ours) is type(plain)
    if isinstance(plain, dict):
        assert ours.keys() == plain.keys()
        for name in plain:
            assert_equal(ours[name], plain[name])
    elif isinstance(plain, list):
        for one, other in zip(ours, plain, strict=True):
            assert_equal(one, other)
    else:
        assert ours.dtype == plain.dtype and ours.stride() == plain.stride()
        assert torch.equal(ours, plain)


@pytest.mark.parametrize("pair", MODULES, indirect=True)
@pytest.mark.parametrize("resident", [False, True])
def test_batches__are_those_of_a_plain_module(
    pair: tuple[DataModule, DataModule], resident: bool
) -> None:
    ours, plain = pair
    assert plain.kept_images() == [] and ours.kept_images()
    if resident:
        for kept in ours.kept_images():
            kept.reside(CPU)
    assert_equal(batches(ours), batches(plain))
    for kept in ours.kept_images():
        assert kept._made.all() != resident, "what resides on a device takes no room here"
        assert kept.residence is None or kept.residence.copied.all()


@pytest.mark.parametrize("pair", ["both", "mixup", "boxes"], indirect=True)
@pytest.mark.parametrize("resident", [False, True])
def test_batches__of_loader_processes(
    pair: tuple[DataModule, DataModule], resident: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, plain = pair
    ours.workers = 1
    if resident:
        for kept in ours.kept_images():
            kept.reside(CPU)
    expected = list(plain.eval_loader("validation"))
    loader = ours.eval_loader("validation")
    assert loader.num_workers == (0 if resident else 1), "where images reside, nothing is loaded"
    assert_equal([move_data_to_device(each, CPU) for each in loader], expected)
    monkeypatch.setattr(image_cache, "opened", None)  # what the process has made is here too
    ours.workers = 0
    assert_equal([move_data_to_device(each, CPU) for each in ours.eval_loader("validation")],
                 expected)


@pytest.mark.parametrize("pair", ["colour", "grey", "both"], indirect=True)
def test_batches__as_torchvision_makes_them_image_by_image(
    pair: tuple[DataModule, DataModule]
) -> None:
    for data in pair:
        fit = FitSize((24, 24), functional.InterpolationMode.BILINEAR)
        (batch,) = list(data.eval_loader("test"))
        for image, position in zip(batch["inputs"]["pixels"], batch["index"], strict=True):
            with Image.open(data.splits["test"].inputs[position]) as opened:
                raw = functional.pil_to_tensor(opened.convert("RGB"))
            expected = functional.normalize(fit(raw).float() / 255, list(MEAN), list(STD))
            assert torch.equal(image, expected)


@pytest.mark.parametrize("pair", ["colour"], indirect=True)
def test_images__are_made_once_and_for_each_size_anew(
    pair: tuple[DataModule, DataModule], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, _ = pair
    made: list[tuple[int, int]] = []
    fit = FitSize.__call__
    monkeypatch.setattr(FitSize, "__call__",
                        lambda self, image: made.append(self.size) or fit(self, image))
    batches(data)
    assert made == [(24, 24)] * 30
    kept = data.kept_images()
    kept[0].reside(CPU)
    other = copy.copy(data)  # as another seed's module
    other.connect(Reader(), seed=4)  # type: ignore[arg-type]
    assert other.kept_images() == kept
    assert isinstance(next(iter(other.train_dataloader()))["inputs"]["pixels"], torch.Tensor)
    batches(other)
    assert len(made) == 30
    data.connect(Reader(16), seed=3)  # type: ignore[arg-type]
    batches(data)
    assert made[30:] == [(16, 16)] * 30


def test_augmented__keeps_evaluation_alone(tmp_path: Path) -> None:
    data = MODULES["augmented"](tmp_path)
    data.connect(Reader(), seed=3)  # type: ignore[arg-type]
    sizes = [len(data.splits[split]) for split in ("validation", "test")]
    assert [len(kept._made) for kept in data.kept_images()] == sizes


DECODED = sum((40 + i % 3) * (40 - i % 5) * 3 for i in range(30))
TRAIN, VALIDATION, TEST = (n * 24 * 24 * 3 for n in (20, 4, 6))


@pytest.mark.parametrize(("bound", "splits"), [
    (DECODED + TRAIN + VALIDATION + TEST, {"train", "validation", "test"}),
    (DECODED + TRAIN + VALIDATION + TEST - 1, {"train", "validation"}),
    (DECODED + TRAIN - 1, {"validation", "test"}),
    (DECODED, set()),
    (DECODED - 1, {"train", "validation", "test"}),  # of files, since decoded they do not fit
    (VALIDATION, {"validation"}),
    (VALIDATION - 1, set()),
])
def test_bound__is_of_decoded_and_fitted_images_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: int, splits: set[str]
) -> None:
    plain = MODULES["colour"](tmp_path)
    plain.plain = True
    plain.connect(Reader(), seed=3)  # type: ignore[arg-type]
    monkeypatch.setattr(image_store, "IN_MEMORY", bound)
    data = MODULES["colour"](tmp_path)
    data.connect(Reader(), seed=3)  # type: ignore[arg-type]
    images = data._images  # type: ignore[attr-defined]
    assert {split for split in data.splits if images.kept(split) is not None} == splits
    assert all(isinstance(image, Path) == (bound < DECODED) for image in images.of("train"))
    assert_equal(batches(data), batches(plain))


# Names

def test_named__is_moved_to_where_no_image_resides(tmp_path: Path) -> None:
    data = MODULES["grey"](tmp_path)
    data.connect(Reader(), seed=3)  # type: ignore[arg-type]
    expected = list(data.eval_loader("test"))
    for kept in data.kept_images():
        kept.reside(torch.device("meta"))
    named = list(data.eval_loader("test"))
    assert isinstance(named[0]["inputs"]["pixels"], ImageBatchRef)
    assert_equal([move_data_to_device(each, CPU) for each in named], expected)
    there = move_data_to_device(named[0], torch.device("meta"))["inputs"]["pixels"]
    assert there.is_meta and there.shape == expected[0]["inputs"]["pixels"].shape


def test_kept__are_picklable_for_processes_that_are_not_forked() -> None:
    kept = ImageCache([torch.full((3, 5, 5), i, dtype=torch.uint8) for i in range(4)],
                      FitSize((3, 3), functional.InterpolationMode.BILINEAR), 3)
    kept[1]
    with torch.multiprocessing.get_context("spawn").Pool(1) as pool:
        assert torch.equal(pool.apply(ImageCache.__getitem__, (kept, 2)),
                           torch.full((3, 3, 3), 2, dtype=torch.uint8))
    assert kept._made.tolist() == [0, 1, 1, 0]
