"""Pictures of two classes, a few of them cut short or empty."""

from pathlib import Path

import numpy as np
from PIL import Image


def make(folder: Path) -> None:
    draw = np.random.default_rng(0)
    for label in "ab":
        (folder / "shapes" / label).mkdir(parents=True)
        for number in range(24):
            path = folder / "shapes" / label / f"{number}.png"
            Image.fromarray(draw.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(path)
            if number % 4 == 0:
                path.write_bytes(path.read_bytes()[:60 if number % 8 else 0])
