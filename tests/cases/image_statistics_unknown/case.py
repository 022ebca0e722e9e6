"""A network whose processor file says its size alone."""

import json
import shutil
from pathlib import Path

from PIL import Image


def make(folder: Path) -> None:
    shutil.copytree(folder / "resnet", folder / "network")
    for name, settings in {"network": {"size": 32}, "named": {
            "size": 32, "image_processor_type": "ViTImageProcessor"}}.items():
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "preprocessor_config.json").write_text(json.dumps(settings))
    (folder / "nothing").mkdir()
    for number in range(12):
        path = folder / "pictures" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30 + number), (20 * number, 90, 200)).save(path)
