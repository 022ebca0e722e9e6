import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from segmentation import CLASSES, write_scenes

from ftlab.backbones.preprocessing import ImagePreprocessing
from ftlab.data.mask_augment import MaskAugment
from ftlab.data.semantic_segmentation import SemanticSegmentation
from ftlab.errors import InputError


class Reader:
    """Stands for a backbone: reads images of a size, as they are."""

    preprocessing = ImagePreprocessing("x", (32, 48), (0.0,) * 3, (1.0,) * 3)


def loaded(source: Path, **settings) -> SemanticSegmentation:
    data = SemanticSegmentation(str(source), **{"classes": CLASSES, **settings})
    data.load()
    return data


def mask_of(root: Path, name: str = "03") -> Path:
    return root / "masks" / f"{name}.png"


@pytest.fixture
def copied(scenes: Path, tmp_path: Path) -> Path:
    return shutil.copytree(scenes, tmp_path / "scenes")


def test_reads__images_with_masks_of_their_names(scenes: Path) -> None:
    data = loaded(scenes)
    assert [len(split) for split in data.splits.values()] == [23, 3, 6]
    assert data.task.summary()["classes"] == CLASSES
    place, label = data.splits["train"].ids[0], data.splits["train"].labels[0]
    assert (label.places == np.array(Image.open(scenes / "masks" / place))).all()
    counts = np.sum([np.bincount(np.array(Image.open(scenes / "masks" / name)).ravel(), minlength=256)
                     for name in data.splits["train"].ids], axis=0)
    assert list(data.task.summary()["train_pixels"].values()) == counts[:3].tolist()


def test_folders_of_splits__are_the_splits(scenes: Path, tmp_path: Path) -> None:
    for number, file in enumerate(sorted((scenes / "images").iterdir())):
        part = ("train", "train", "val", "test")[number % 4]
        for kind in ("images", "masks"):
            (tmp_path / kind / part / "deep").mkdir(parents=True, exist_ok=True)
            shutil.copy(scenes / kind / file.name, tmp_path / kind / part / "deep")
    data = loaded(tmp_path)
    assert [len(split) for split in data.splits.values()] == [16, 8, 8]
    assert data.splits["test"].ids[0] == "deep/03.png"
    shutil.rmtree(tmp_path / "images" / "train")
    with pytest.raises(InputError, match="folders of splits, but none for train"):
        loaded(tmp_path)


def test_folders__may_have_other_names_and_places(scenes: Path, copied: Path, tmp_path: Path) -> None:
    (copied / "masks").rename(tmp_path / "labels")
    (copied / "images").rename(tmp_path / "photos")
    data = loaded(tmp_path / "photos", images=".", masks=str(tmp_path / "labels"))
    assert data.fingerprint == loaded(scenes).fingerprint


def test_fingerprint__is_of_what_a_mask_says(scenes: Path, copied: Path) -> None:
    whole = loaded(scenes).fingerprint
    for file in (copied / "masks").iterdir():  # the same, by a palette
        values = np.array(Image.open(file))
        paletted = Image.new("P", values.shape[::-1])
        paletted.frombytes(values.tobytes())
        paletted.putpalette([value for i in range(256) for value in (i, 255 - i, 7)])
        paletted.save(file)
    assert loaded(copied).fingerprint == whole
    values = np.array(Image.open(mask_of(copied)))
    values[0, 0] = 1 - values[0, 0]
    Image.fromarray(values).save(mask_of(copied))
    assert loaded(copied).fingerprint != whole


def test_classes__merge_and_take_any_values(copied: Path) -> None:
    for file in (copied / "masks").iterdir():
        values = np.array(Image.open(file))
        Image.fromarray(np.array([0, 128, 255], np.uint8)[values.clip(max=2) * (values < 255)]).save(file)
    data = loaded(copied, classes={"0": "nothing", "128": "thing", "255": "thing"}, ignore=None)
    assert data.task.summary()["classes"] == ["nothing", "thing"]
    found = loaded(copied, classes=None, ignore=None)
    assert found.task.summary()["classes"] == ["0", "128", "255"]


@pytest.mark.parametrize("policy", ["none", "flip", "crop", "colour"])
def test_augment__changes_image_and_mask_alike(policy, tmp_path: Path) -> None:
    """The image is its own mask, in grey: where the two part, they were not changed alike."""
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    draw = np.random.default_rng(0)
    for i in range(8):
        places = np.kron(draw.integers(0, 2, (6, 8)), np.ones((16, 16), int)).astype(np.uint8)
        Image.fromarray(places * 200).save(tmp_path / "images" / f"{i}.png")
        Image.fromarray(places).save(tmp_path / "masks" / f"{i}.png")
    data = SemanticSegmentation(str(tmp_path), classes=["dark", "light"], image_size=(96, 128), batch_size=4,
                                augment=MaskAugment(policy, upside_down=policy != "none"))
    data.connect(Reader(), seed=3)
    loader = data.train_dataloader()
    seen = []
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)
        batch = next(iter(loader))
        image, mask = batch["inputs"]["x"], torch.stack(batch["target"])
        light = (image - image.amin(dim=(1, 2, 3), keepdim=True)).mean(dim=1)
        light = light > light.amax(dim=(1, 2), keepdim=True) / 2
        assert mask.unique().tolist() == [0, 1]  # no class between two
        assert (light == (mask == 1)).float().mean() > 0.97  # edges are a mixture
        seen.append(mask)
    again = next(iter(data.train_dataloader()))
    assert torch.equal(torch.stack(again["target"]), seen[0])


def test_augment__window_is_what_torchvision_draws() -> None:
    step = MaskAugment("crop", min_area=0.25).transform().transforms[1]
    sizes = [step(torch.zeros(3, 40, 60)).shape[1:] for _ in range(40)]
    areas = [height * width / 2400 for height, width in sizes]
    assert min(areas) > 0.2 and max(areas) <= 1 and len(set(sizes)) > 10


def test_masks__keep_their_size_where_predictions_are_measured(scenes: Path) -> None:
    data = loaded(scenes, augment=MaskAugment("none"))
    data.connect(Reader(), seed=0)
    assert {mask.shape for batch in data.train_dataloader() for mask in batch["target"]} == {(32, 48)}
    for batch in data.test_dataloader():
        assert batch["inputs"]["x"].shape[1:] == (3, 32, 48)
        for at, mask in zip(batch["index"].tolist(), batch["target"], strict=True):
            assert (mask.numpy() == data.splits["test"].labels[at].places).all()


def remove_mask(root: Path) -> None:
    mask_of(root).unlink()


def other_size(root: Path) -> None:
    Image.open(mask_of(root)).resize((20, 30)).save(mask_of(root))


def other_value(root: Path) -> None:
    values = np.array(Image.open(mask_of(root)))
    values[2, 3] = 7
    Image.fromarray(values).save(mask_of(root))


def colours(root: Path) -> None:
    Image.open(mask_of(root)).convert("RGB").save(mask_of(root))


def sixteen_bits(root: Path) -> None:
    Image.fromarray(np.array(Image.open(mask_of(root))).astype(np.uint16)).save(mask_of(root))


def lossy(root: Path) -> None:
    Image.open(mask_of(root)).save(mask_of(root), format="JPEG")


def damaged(root: Path) -> None:
    mask_of(root).write_bytes(mask_of(root).read_bytes()[:40])


def no_folder(root: Path) -> None:
    (root / "masks").rename(root / "labels")


def no_images(root: Path) -> None:
    shutil.rmtree(root / "images")
    (root / "images").mkdir()


@pytest.mark.parametrize(("change", "what", "mend"), [
    (remove_mask, r"images/03.png has no mask \S*masks/03.png", "add the mask, or remove the image"),
    (other_size, r"masks/03.png has 20x30 pixels, and its image \S*03.png 36x36", "nearest neighbours"),
    (other_value, r"masks/03.png: the value 7 is none of the 3 classes \(0 background, 1 disc, 2 square\)",
     "ignore: 7"),
    (colours, r"masks/03.png is of mode RGB, where a mask has the number of a class", "PNG of one channel"),
    (sixteen_bits, r"masks/03.png is of mode I;16", "8 bits"),
    (lossy, r"masks/03.png is a JPEG", "save masks as PNG"),
    (damaged, r"masks/03.png does not decode", "replace the file"),
    (no_folder, r"has no folder 'masks' of masks", "name another with masks:"),
    (no_images, r"images has no image", "add images"),
], ids=lambda value: getattr(value, "__name__", ""))
def test_refuses__with_the_file(change: Callable[[Path], None], what: str, mend: str, copied: Path) -> None:
    change(copied)
    with pytest.raises(InputError, match=what) as caught:
        loaded(copied)
    assert mend in caught.value.mend
    assert "\n" not in caught.value.what + caught.value.mend


def test_refuses__all_faults_at_once(copied: Path) -> None:
    remove_mask(copied)
    mask_of(copied, "05").unlink()
    with pytest.raises(InputError, match=r"2 masks cannot be used: .*03.png; .*05.png"):
        loaded(copied)


@pytest.mark.parametrize(("settings", "what"), [
    ({"classes": {"a": "x", "1": "y"}}, "'a' is no value of a mask"),
    ({"classes": {"0": "x", "255": "y"}}, "names the value 255, which ignore leaves out"),
    ({"classes": ["x", " "]}, "gives 1 an empty name"),
    ({"ignore": 300}, "ignore must be from 0 to 255"),
    ({"augment": "colors"}, "policy must be one of"),
])
def test_settings__are_checked(settings: dict, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        if "augment" in settings:
            settings = {"augment": MaskAugment(settings["augment"])}
        SemanticSegmentation("x", **settings)


def test_stand_ins__have_the_images_sizes(scenes: Path) -> None:
    data = loaded(scenes)
    new = data.read_new(str(scenes / "images" / "01.png"))
    assert new.labels == [None]
    label = data.stand_ins(new)[0]
    assert label.size == (36, 36) and not any(label.pixels)
    assert len(data.read_new(str(scenes)).labels[0].places) == 40


def test_write_scenes__has_every_class(tmp_path: Path) -> None:
    data = loaded(write_scenes(tmp_path / "more", 8))
    assert min(data.task.summary()["train_pixels"].values()) > 0
