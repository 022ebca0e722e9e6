"""What turns examples into inputs, as transformers reads it from a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING

from ftlab.backbones.preprocessing import (
    AudioPreprocessing,
    ImageFit,
    ImagePreprocessing,
    Preprocessing,
    TextPreprocessing,
)
from ftlab.errors import Incompatible
from ftlab.tasks.base import Task

_RESAMPLE = {"nearest": 0, "bilinear": 2, "bicubic": 3}  # PIL's codes


def write_preprocessor(preprocessing: Preprocessing, fit: ImageFit | None, task: Task, config: Any,
                       folder: Path) -> None:
    """Write the tokenizer, image processor or feature extractor of a network of transformers.

    Args:
        preprocessing: of the network.
        fit: how images get their size; None where there are none, or nobody says it.
        task: whose network it is.
        config: the network's.
        folder: to write to.

    Raises:
        Incompatible: images were sized as no processor of transformers does it.
    """
    if isinstance(preprocessing, TextPreprocessing):
        preprocessing.tokenizer.save_pretrained(folder)
    elif isinstance(preprocessing, ImagePreprocessing):
        fit = fit or ImageFit(preprocessing.size, crops=False)
        _image_processor(preprocessing, fit, task, config).save_pretrained(folder)
    elif isinstance(preprocessing, AudioPreprocessing):
        extractor: Any = getattr(preprocessing.features, "extractor", None)
        extractor.save_pretrained(folder)
        if preprocessing.encode is not None:
            encode: Any = preprocessing.encode
            encode.tokenizer().save_pretrained(folder)


def _image_processor(preprocessing: ImagePreprocessing, fit: ImageFit, task: Task,
                     config: Any) -> Any:
    if fit.processor is not None:
        return fit.processor
    height, width = fit.size
    said: dict[str, Any] = {
        "image_mean": list(preprocessing.mean), "image_std": list(preprocessing.std),
        "resample": _RESAMPLE[preprocessing.interpolation]}
    size = {"height": height, "width": width}
    if task.form == "boxes" and type(config) in IMAGE_PROCESSOR_MAPPING:
        # the architecture's own, which turns outputs into boxes too
        own: Any = IMAGE_PROCESSOR_MAPPING[type(config)]
        own = own["torchvision"]
        return own(size=size, do_normalize=True, do_pad=False, **said)
    if fit.crops:
        raise Incompatible("its images were cropped as no image processor of transformers does it",
                           "give the backbone's preprocessing `fits`")
    return transformers.ViTImageProcessor(size=size, **said)
