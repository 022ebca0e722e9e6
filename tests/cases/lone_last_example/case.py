"""Images of eight pixels, of which the last maps of the network have one."""

from pathlib import Path

import numpy as np
from PIL import Image


def make(folder: Path) -> None:
    draw = np.random.default_rng(0)
    for split, count in (("train", 33), ("test", 4)):
        for i in range(count):
            label = ("dark", "light")[i % 2]
            (folder / split / label).mkdir(parents=True, exist_ok=True)
            pixels = draw.integers(0, 120, (8, 8, 3), dtype=np.uint8) + np.uint8(100 * (i % 2))
            Image.fromarray(pixels).save(folder / split / label / f"{i:02}.png")
