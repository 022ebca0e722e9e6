"""Images with a number each, and a tiny ResNet."""

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.image import ImageClassification
from ftlab.data.image_augment import ImageAugment
from ftlab.tasks.regression import Regression


def make(fixture: Callable[[str], Any]) -> Callable[[], tuple[HuggingFace, ImageClassification]]:
    folder, images = fixture("tiny_resnet"), fixture("tmp_path_factory").mktemp("brightness")
    draw = np.random.default_rng(0)
    lines = ["image,label"]
    for i in range(64):
        level = draw.integers(0, 200)
        pixels = draw.integers(0, 50, (32, 32, 3), dtype=np.uint8) + np.uint8(level)
        Image.fromarray(pixels).save(images / f"{i}.png")
        lines.append(f"{i}.png,{1000 + level / 10}")
    (images / "table.csv").write_text("\n".join(lines) + "\n")
    return lambda: (
        HuggingFace(str(folder)),
        ImageClassification(str(images / "table.csv"), image_size=32, batch_size=8,
                            augment=ImageAugment(policy="none"), task=Regression()),
    )
