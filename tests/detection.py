"""Fixtures: generated images with objects, a trunk for them, and tiny detectors."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image
from torchvision import models

Object = tuple[str, float, float, float, float]
COLOURS = {"red": (230, 30, 30), "blue": (30, 30, 230)}
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
_EDGES = {"size": {"shortest_edge": 64, "longest_edge": 96}}
PROCESSORS = {
    "yolos": lambda: hf.YolosImageProcessor(**_EDGES),
    "detr": lambda: hf.DetrImageProcessor(**_EDGES),
    "rt_detr": lambda: hf.RTDetrImageProcessor(size={"height": 64, "width": 64}),
}


def draw(path: Path, objects: Sequence[Object], size: tuple[int, int] = (64, 64)) -> None:
    """A dark image of noise with a rectangle an object; size is width and height."""
    pixels = np.random.default_rng(len(path.stem)).integers(0, 60, (size[1], size[0], 3), np.uint8)
    for label, x1, y1, x2, y2 in objects:
        pixels[int(y1):int(y2), int(x1):int(x2)] = COLOURS.get(label, (200, 200, 200))
    Image.fromarray(pixels).save(path)


def write_voc(root: Path, images: dict[str, Sequence[Object]],
              lists: dict[str, Sequence[str]] | None = None, size: tuple[int, int] = (64, 64),
              difficult: Sequence[str] = ()) -> Path:
    """A folder in Pascal VOC's layout; images are PNG files."""
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name, objects in images.items():
        draw(root / "JPEGImages" / f"{name}.png", objects, size)
        things = "".join(
            f"<object><name>{label}</name><difficult>{int(label in difficult)}</difficult><bndbox>"
            f"<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
            for label, x1, y1, x2, y2 in objects)
        (root / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><filename>{name}.png</filename><size><width>{size[0]}</width>"
            f"<height>{size[1]}</height></size>{things}</annotation>")
    for name, members in (lists or {}).items():
        (root / "ImageSets" / "Main" / f"{name}.txt").write_text("\n".join(members) + "\n")
    return root


def write_coco(root: Path, images: dict[str, Sequence[Object]]) -> Path:
    """A COCO file with its images beside it."""
    root.mkdir(parents=True, exist_ok=True)
    labels = sorted({each[0] for objects in images.values() for each in objects})
    content: dict = {"images": [], "annotations": [],
                     "categories": [{"id": 10 * i, "name": n} for i, n in enumerate(labels, 1)]}
    for number, (name, objects) in enumerate(images.items(), 100):
        draw(root / f"{name}.png", objects)
        content["images"].append({"id": number, "file_name": f"{name}.png"})
        for label, x1, y1, x2, y2 in objects:
            content["annotations"].append({
                "id": len(content["annotations"]), "image_id": number, "iscrowd": 0,
                "category_id": 10 * (labels.index(label) + 1), "bbox": [x1, y1, x2 - x1, y2 - y1]})
    path = root / "instances.json"
    path.write_text(json.dumps(content))
    return path


def write_yolo(root: Path, splits: dict[str, dict[str, Sequence[Object]]],
               size: tuple[int, int] = (64, 64)) -> Path:
    """A data.yaml with `images` and `labels` of each split beside it, by the keys that it has."""
    labels = sorted({each[0] for images in splits.values() for objects in images.values() for each in objects})
    lines = ["path: .", *(f"{key}: images/{key}" for key in splits), "names:"]
    for key, images in splits.items():
        for kind in ("images", "labels"):
            (root / kind / key).mkdir(parents=True, exist_ok=True)
        for name, objects in images.items():
            draw(root / "images" / key / f"{name}.png", objects, size)
            rows = [f"{labels.index(label)} {(x1 + x2) / 2 / size[0]} {(y1 + y2) / 2 / size[1]} "
                    f"{(x2 - x1) / size[0]} {(y2 - y1) / size[1]}" for label, x1, y1, x2, y2 in objects]
            if rows:
                (root / "labels" / key / f"{name}.txt").write_text("\n".join(rows) + "\n")
    path = root / "data.yaml"
    path.write_text("\n".join([*lines, *(f"  {i}: {name}" for i, name in enumerate(labels))]) + "\n")
    return path


def random_objects(generator: np.random.Generator, most: int = 2) -> list[Object]:
    found = []
    for side in generator.permutation(2)[:generator.integers(1, most + 1)]:  # halves: no overlap
        x, y = 32 * side + generator.integers(0, 8), generator.integers(0, 40)
        width, height = generator.integers(14, 24, 2)
        found.append((("red", "blue")[generator.integers(2)], float(x), float(y),
                      float(x + width), float(y + height)))
    return found


@pytest.fixture(scope="session")
def rectangles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 images in Pascal VOC's layout with one or two red or blue rectangles each."""
    generator = np.random.default_rng(0)
    images = {f"{i:03}": random_objects(generator) for i in range(40)}
    names = list(images)
    return write_voc(tmp_path_factory.mktemp("data") / "rectangles", images,
                     {"train": names[:24], "val": names[24:32], "test": names[32:]})


@pytest.fixture(scope="session")
def tiny_trunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of torchvision's smallest ShuffleNet."""
    path = tmp_path_factory.mktemp("tiny") / "shufflenet.pth"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(models.shufflenet_v2_x0_5(weights=None).state_dict(), path)
    return path


@pytest.fixture
def objects() -> Callable[[int], list[Object]]:
    return lambda seed: random_objects(np.random.default_rng(seed))


@pytest.fixture(scope="session")
def detector_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny random detector of transformers, made once."""
    def make(name: str) -> Path:
        path = tmp_path_factory.getbasetemp() / "detectors" / name
        if not path.exists():
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                DETECTORS[name]().save_pretrained(path)
            PROCESSORS[name]().save_pretrained(path)
        return path

    return make
