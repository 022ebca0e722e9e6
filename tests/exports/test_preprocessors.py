"""Image processors that are written, held to what training fed the network."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers as hf
from detection import write_voc
from PIL import Image

from ftlab.backbones.huggingface import HuggingFace
from ftlab.backbones.preprocessing import ImageFit, ImagePreprocessing
from ftlab.data.object_detection import ObjectDetection
from ftlab.errors import Incompatible
from ftlab.exports.preprocessors import write_preprocessor
from ftlab.tasks.classification import Classification


@pytest.mark.parametrize("name", ["detr", "rt_detr"])
@pytest.mark.parametrize("told", [{"resample": 3}, {"image_mean": 0.3, "image_std": 0.6},
                                  {"do_rescale": False}])
def test_detector__stretches_and_normalises_as_it_is_written(
    name: str, told: dict, detector_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    source = tmp_path / "network"
    shutil.copytree(detector_folder(name), source)
    file = source / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"do_normalize": True} | told))
    images = {f"{i}": [("red", 2.0, 3.0, 20.0, 15.0)] for i in range(6)}
    folder = write_voc(tmp_path / "data", images, size=(53, 37))
    data = ObjectDetection(str(folder), image_size=(64, 96), batch_size=6)
    backbone = HuggingFace(str(source))
    data.connect(backbone, 0)
    config = hf.AutoConfig.from_pretrained(source)
    write_preprocessor(backbone.preprocessing, data.image_fit, None, data.task, config,
                       tmp_path / "written")
    processor = hf.AutoImageProcessor.from_pretrained(tmp_path / "written")
    for batch in data.eval_loader("train"):
        for index, ours in zip(batch["index"].tolist(), batch["inputs"]["pixel_values"],
                               strict=True):
            picture = Image.open(folder / "JPEGImages" / f"{data.splits['train'].ids[index]}.png")
            theirs = processor(picture, return_tensors="pt")["pixel_values"][0]
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_crops_of_ours__are_not_written_as_another_s(tmp_path: Path) -> None:
    plain = ImagePreprocessing("pixel_values", (32, 32), (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(Incompatible, match="no image processor of transformers"):
        write_preprocessor(plain, ImageFit((32, 32), crops=True), None, Classification(),
                           hf.ResNetConfig(), tmp_path)
