"""Pictures as cameras, phones and microscopes leave them."""

import json
from pathlib import Path

from PIL import Image


def make(folder: Path) -> None:
    for number in range(12):
        path = folder / "pictures" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        damaged = {"exif": b"Exif\0\0garbage!"} if number in (3, 4) else {}
        Image.new("RGB", (40, 30 + number), (20 * number, 90, 200)).save(path, **damaged)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn: 30 x 60 in the file, 60 x 30 upright
    content: dict = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cell"}]}
    for number in range(12):
        name = f"{number}.tif"
        Image.new("RGB", (30, 60), (20 * number, 90, 200)).save(folder / name, exif=exif)
        content["images"].append({"id": number, "file_name": name})
        content["annotations"].append({"id": number, "image_id": number, "category_id": 1,
                                       "bbox": [40, 5, 15, 20]})
    (folder / "cells.json").write_text(json.dumps(content))
