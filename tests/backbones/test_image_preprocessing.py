"""What a data module makes of pictures, held to the folder's own image processor."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.image import ImageClassification
from ftlab.errors import InputError

UNRENDERED = True
SIZES = [(53, 37), (37, 53), (40, 40), (31, 90), (200, 150), (7, 5)]  # width, height
SQUARE = {"size": {"height": 40, "width": 40}}
EDGE = {"size": {"shortest_edge": 46}, "crop_size": {"height": 40, "width": 40}}
VIT = {"image_processor_type": "ViTImageProcessor", **SQUARE}
OWN = {  # what the file says; the class named says the rest
    "vit": VIT,
    "vit_old": {"feature_extractor_type": "ViTFeatureExtractor", "size": 40},
    "vit_fast": {"image_processor_type": "ViTImageProcessorFast", **SQUARE},
    "deit": {"image_processor_type": "DeiTImageProcessor", "size": 44, "crop_size": 40},
    "beit": {"image_processor_type": "BeitImageProcessor", **SQUARE},
    "clip": {"image_processor_type": "CLIPImageProcessor", **EDGE},
    "clip_old": {"feature_extractor_type": "CLIPFeatureExtractor", "size": 40, "crop_size": 40},
    "crop_unequal": {"image_processor_type": "CLIPImageProcessor", "size": 46,
                     "crop_size": {"height": 40, "width": 28}},
    "crop_larger": {"image_processor_type": "CLIPImageProcessor", "size": 30, "crop_size": 40},
    "siglip": {"image_processor_type": "SiglipImageProcessor", **SQUARE},
    "convnext": {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 40}},
    "convnext_pct": {"image_processor_type": "ConvNextImageProcessor", "crop_pct": 0.7,
                     "size": {"shortest_edge": 40}},
    "convnext_large": {"image_processor_type": "ConvNextImageProcessor"},
    "efficientnet": {"image_processor_type": "EfficientNetImageProcessor", **SQUARE},
    "bit": {"image_processor_type": "BitImageProcessor", **EDGE},
    "levit": {"image_processor_type": "LevitImageProcessor", "size": {"shortest_edge": 40},
              "crop_size": {"height": 40, "width": 40}},
    "pvt": {"image_processor_type": "PvtImageProcessor", **SQUARE},
    "mobilenet": {"image_processor_type": "MobileNetV2ImageProcessor", **EDGE},
    "poolformer": {"image_processor_type": "PoolFormerImageProcessor", **EDGE},
    "perceiver": {"image_processor_type": "PerceiverImageProcessor", **SQUARE,
                  "crop_size": {"height": 45, "width": 45}},
    "unequal": VIT | {"size": {"height": 24, "width": 44}},
    "scalar": VIT | {"image_mean": 0.4, "image_std": 0.25},
    "mean_alone": VIT | {"image_mean": [0.1, 0.2, 0.3]},
    "no_rescale": VIT | {"do_rescale": False},
    "other_factor": VIT | {"rescale_factor": 1 / 127.5},
    "no_normalise": VIT | {"do_normalize": False},
    "neither": VIT | {"do_normalize": False, "do_rescale": False},
    **{f"resample_{code}": VIT | {"resample": code} for code in (0, 1, 2, 3)},
}
TOLD = {"size": 40, "resample": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of each size, of two classes, one of them grey."""
    folder, noise = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number, size in enumerate(2 * SIZES):
        path = folder / ("ab"[number % 2]) / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        small = Image.fromarray(noise.integers(0, 256, (9, 8, 3), dtype=np.uint8))
        (small.convert("L") if number == 4 else small).resize(size, 3).save(path)
    return folder


@pytest.fixture
def folder(tiny_resnet: Path, tmp_path: Path) -> Callable[..., Path]:
    def make(settings: dict[str, Any] | None, nested: bool = False) -> Path:
        path = tmp_path / "network"
        shutil.copytree(tiny_resnet, path)
        (path / "preprocessor_config.json").unlink()
        if nested:
            (path / "processor_config.json").write_text(
                json.dumps({"processor_class": "CLIPProcessor", "image_processor": settings}))
        elif settings is not None:
            (path / "preprocessor_config.json").write_text(json.dumps(settings))
        return path

    return make


def inputs(source: Path, pictures: Path, **settings: Any) -> dict[str, torch.Tensor]:
    """What the network reads of each picture, by its path."""
    data = ImageClassification(str(pictures), batch_size=4, **settings)
    data.connect(HuggingFace(str(source)), 0)
    given = {}
    for split in ("train", "validation", "test"):
        for batch in data.eval_loader(split):
            for index, image in zip(batch["index"].tolist(), batch["inputs"]["pixel_values"],
                                    strict=True):
                given[data.splits[split].ids[index]] = image
    assert len(given) == 2 * len(SIZES)
    return given


def held_to(processor: Any, given: dict[str, torch.Tensor], pictures: Path) -> None:
    for name, image in given.items():
        picture = Image.open(pictures / name).convert("RGB")
        theirs = processor(picture, return_tensors="pt")["pixel_values"][0].float()
        largest = max(1.0, theirs.abs().max().item())  # hundreds without rescaling
        torch.testing.assert_close(image, theirs, rtol=0, atol=1e-5 * largest)


@pytest.mark.parametrize("name", OWN)
def test_pixels__are_the_named_class_s_own(name: str, folder: Callable[..., Path],
                                           pictures: Path) -> None:
    source = folder(OWN[name])
    held_to(hf.AutoImageProcessor.from_pretrained(source), inputs(source, pictures), pictures)


def test_pixels__of_a_nested_file(folder: Callable[..., Path], pictures: Path) -> None:
    source = folder(OWN["clip"], nested=True)
    held_to(hf.CLIPImageProcessor(**EDGE), inputs(source, pictures), pictures)


def test_pixels__without_a_class_where_the_file_says_all(folder: Callable[..., Path],
                                                         pictures: Path) -> None:
    given = inputs(folder({**TOLD, "crop_pct": 1.0}), pictures)
    # of a ResNet transformers takes ConvNeXt's class
    held_to(hf.ConvNextImageProcessor(**TOLD, crop_pct=1.0), given, pictures)


@pytest.mark.parametrize(("name", "other"), [
    ("vit", {"size": {"height": 20, "width": 20}}),
    ("deit", {"size": {"height": 22, "width": 22}, "crop_size": {"height": 20, "width": 20}}),
    ("clip", {"size": {"shortest_edge": 23}, "crop_size": {"height": 20, "width": 20}}),
    ("convnext_pct", {"size": {"shortest_edge": 20}}),
    ("unequal", {"size": {"height": 20, "width": 20}})])
def test_image_size__keeps_the_class_s_proportions(
    name: str, other: dict[str, Any], folder: Callable[..., Path], pictures: Path
) -> None:
    source = folder(OWN[name])
    processor = hf.AutoImageProcessor.from_pretrained(source, **other)
    held_to(processor, inputs(source, pictures, image_size=20), pictures)


@pytest.mark.parametrize("settings", [
    VIT | {"do_resize": False}, VIT | {"size": {"shortest_edge": 40, "longest_edge": 60}},
    OWN["clip"] | {"do_center_crop": False}])
def test_many_sizes__need_image_size(settings: dict[str, Any], folder: Callable[..., Path],
                                     pictures: Path) -> None:
    source = folder(settings)
    with pytest.raises(InputError, match=r"images of many sizes.*\n.*set image_size"):
        inputs(source, pictures)
    given = inputs(source, pictures, image_size=20)
    assert {image.shape for image in given.values()} == {(3, 20, 20)}


@pytest.mark.parametrize(("settings", "match"), [
    (None, "no preprocessor_config.json.*image_mean, image_std, size and resample"),
    ({}, "lacks image_mean, image_std, size, resample, and names no class"),
    ({**TOLD, "image_std": None}, "lacks image_std, and names no class"),
    ({"image_processor_type": "Ours", "size": 40}, "lacks image_mean.*transformers has no Ours"),
    ({"image_processor_type": "Ours", "auto_map": {"AutoImageProcessor": "ours.Ours"}},
     "lacks image_mean.*transformers has no Ours"),
    (VIT | {"size": {"longest_edge": 40}}, "longest_edge=40"),
    (VIT | {"image_std": [0, 0, 0]}, "image_std"),
    (VIT | {"image_mean": [0.5] * 4, "image_std": [0.5] * 4}, "cannot prepare an image"),
    (VIT | {"image_std": "x"}, "cannot prepare an image"),
    (VIT | {"resample": 5}, "cannot prepare an image"),
    (VIT | {"do_pad": True, "pad_size": {"height": 50, "width": 50}}, "does more to images"),
    ({"image_processor_type": "MobileViTImageProcessor"}, r"does more.*\(red first\)")])
def test_refusals(settings: dict[str, Any] | None, match: str, folder: Callable[..., Path],
                  pictures: Path) -> None:
    with pytest.raises(InputError, match=match) as refused:
        inputs(folder(settings), pictures)
    assert refused.value.mend


def test_network_of_timm__is_sent_there(tmp_path: Path) -> None:
    hf.TimmWrapperConfig(architecture="resnet18").save_pretrained(tmp_path)
    with pytest.raises(InputError, match="timm made it"):
        _ = HuggingFace(str(tmp_path)).preprocessing


def test_preprocessor__from_another_folder(folder: Callable[..., Path], pictures: Path,
                                           tmp_path: Path) -> None:
    hf.BitImageProcessor(**EDGE).save_pretrained(tmp_path / "other")
    source = HuggingFace(str(folder(None)), preprocessor=str(tmp_path / "other"))
    data = ImageClassification(str(pictures), batch_size=20)
    data.connect(source, 0)
    batch = next(iter(data.eval_loader("test")))
    names = [data.splits["test"].ids[index] for index in batch["index"].tolist()]
    held_to(hf.BitImageProcessor(**EDGE),
            dict(zip(names, batch["inputs"]["pixel_values"], strict=True)), pictures)


def test_fit__travels_to_loader_workers(folder: Callable[..., Path], pictures: Path,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    from ftlab.data import image_store

    source = folder(OWN["clip"])
    plain = inputs(source, pictures)
    monkeypatch.setattr(image_store, "IN_MEMORY", 1)  # nothing is kept
    again = inputs(source, pictures, workers=1)
    assert all(torch.equal(plain[name], again[name]) for name in plain)
