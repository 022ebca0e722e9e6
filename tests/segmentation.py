"""Fixtures: generated images with masks, and tiny segmentation networks of transformers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image

CLASSES = ["background", "disc", "square"]
_COLOURS = ((0, 0, 0), (200, 60, 40), (40, 80, 200))
_FOUR = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 24,
         "image_size": 32, "patch_size": 8}
SEGMENTERS = {
    "segformer": lambda: hf.SegformerForSemanticSegmentation(_segformer()),
    "segformer of imagenet": lambda: hf.SegformerForImageClassification(_segformer()),
    "upernet": lambda: hf.UperNetForSemanticSegmentation(hf.UperNetConfig(
        backbone_config=hf.ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, out_features=[
            "stage1", "stage2", "stage3", "stage4"]), hidden_size=16, num_labels=5,
        auxiliary_in_channels=16)),
    "beit": lambda: hf.BeitForSemanticSegmentation(hf.BeitConfig(
        **_FOUR, out_indices=[1, 2, 3, 4], num_labels=5)),
    "dpt": lambda: hf.DPTForSemanticSegmentation(hf.DPTConfig(
        **_FOUR, backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=16, num_labels=5)),
}


def _segformer() -> hf.SegformerConfig:
    return hf.SegformerConfig(
        depths=[1] * 4, hidden_sizes=[8, 8, 16, 16], decoder_hidden_size=16, num_attention_heads=[1, 1, 2, 2],
        num_labels=5, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, classifier_dropout_prob=0.0,
        drop_path_rate=0.0)


def draw(generator: np.random.Generator, size: tuple[int, int] = (40, 48)) -> tuple[np.ndarray, np.ndarray]:
    """A noisy image (H, W, 3) with a disc and a square or one of them, and its mask; 255 around discs."""
    rows, columns = np.mgrid[:size[0], :size[1]]
    mask = np.zeros(size, np.uint8)
    for kind in generator.permutation([1, 2])[:generator.integers(1, 3)]:
        y, x, reach = generator.integers(8, size[0] - 8), generator.integers(8, size[1] - 8), generator.integers(6, 13)
        across, down = abs(columns - x), abs(rows - y)
        if kind == 1:
            far = np.hypot(across, down)
            mask[far <= reach] = 1
            mask[(far > reach) & (far <= reach + 1)] = 255
        else:
            mask[np.maximum(across, down) <= reach] = 2
    image = np.array(_COLOURS, np.uint8)[mask.clip(max=2) * (mask < 255)] // 2
    return image + generator.integers(0, 60, (*size, 3), np.uint8), mask


def write_scenes(root: Path, count: int = 32, sizes: tuple[tuple[int, int], ...] = ((40, 48), (36, 36))) -> Path:
    """A folder with `images` (PNG) and `masks`, of several sizes in turn."""
    generator = np.random.default_rng(0)
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for i in range(count):
        image, mask = draw(generator, sizes[i % len(sizes)])
        Image.fromarray(image).save(root / "images" / f"{i:02}.png")
        Image.fromarray(mask).save(root / "masks" / f"{i:02}.png")
    return root


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 images of two sizes with discs and squares."""
    return write_scenes(tmp_path_factory.mktemp("data") / "scenes")


@pytest.fixture(scope="session")
def segmenter_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny random segmentation network of transformers, made once."""
    def make(name: str) -> Path:
        path = tmp_path_factory.getbasetemp() / "segmenters" / name
        if not path.exists():
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                SEGMENTERS[name]().save_pretrained(path)
            edge = 64 if "segformer" in name else 32  # of a smaller one attention sees one place alone
            hf.SegformerImageProcessor(size={"height": edge, "width": edge}).save_pretrained(path)
        return path

    return make
