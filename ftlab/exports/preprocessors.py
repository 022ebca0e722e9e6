"""What turns examples into inputs, as transformers reads it from a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers

from ftlab.backbones.preprocessing import (
    AudioPreprocessing,
    ImagePreprocessing,
    Preprocessing,
    TextPreprocessing,
)
from ftlab.data.base import DataModule
from ftlab.data.object_detection import ObjectDetection

_RESAMPLE = {"nearest": 0, "bilinear": 2, "bicubic": 3}  # PIL's codes


def write_preprocessor(preprocessing: Preprocessing, data: DataModule, folder: Path) -> None:
    """Write the tokenizer, image processor or feature extractor.

    An image processor of transformers rounds sizes otherwise than our data modules; the card's
    own lines do as these.
    """
    if isinstance(preprocessing, TextPreprocessing):
        preprocessing.tokenizer.save_pretrained(folder)
    elif isinstance(preprocessing, ImagePreprocessing) and preprocessing.input_name != "x":
        _image_processor(preprocessing, data).save_pretrained(folder)
    elif isinstance(preprocessing, AudioPreprocessing):
        extractor: Any = getattr(preprocessing.features, "extractor", None)
        extractor.save_pretrained(folder)
        if preprocessing.encode is not None:
            encode: Any = preprocessing.encode
            encode.tokenizer().save_pretrained(folder)


def _image_processor(preprocessing: ImagePreprocessing, data: DataModule) -> Any:
    height, width = image_size(preprocessing, data)
    said: dict[str, Any] = {
        "image_mean": list(preprocessing.mean), "image_std": list(preprocessing.std),
        "resample": _RESAMPLE[preprocessing.interpolation]}
    if height == width and not isinstance(data, ObjectDetection):
        return transformers.CLIPImageProcessor(
            size={"shortest_edge": height}, crop_size={"height": height, "width": width}, **said)
    return transformers.ViTImageProcessor(size={"height": height, "width": width}, **said)


def image_size(preprocessing: ImagePreprocessing, data: Any) -> tuple[int, int]:
    """Height and width that the data module gives its images."""
    own = data.image_size
    return (own, own) if isinstance(own, int) else own or preprocessing.size
