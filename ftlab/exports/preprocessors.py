"""Preprocessors of an exported folder, set so that pipelines read raw examples as training did."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import transformers
from tokenizers.pre_tokenizers import ByteLevel
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING

from ftlab.backbones.base import OutputType
from ftlab.backbones.export_code import PlainExamples
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


def write_preprocessor(preprocessing: Preprocessing, fit: ImageFit | None,
                       examples: PlainExamples | None, task: Task, config: Any,
                       *folders: Path) -> None:
    """Write the tokenizer, image processor or feature extractor of a network of transformers.

    Args:
        preprocessing: of the network.
        fit: how images get their size; None where there are none.
        examples: how the data module cuts texts; None where it exports no code.
        task: whose network it is.
        config: the network's.
        folders: to write to.

    Raises:
        Incompatible: images were sized as no processor of transformers does it.
    """
    parts: list[Any] = []
    if isinstance(preprocessing, TextPreprocessing):
        parts = [_text_tokenizer(preprocessing.tokenizer, examples, task.output_type)]
    elif isinstance(preprocessing, ImagePreprocessing):
        fit = fit or ImageFit(preprocessing.size, crops=False)
        parts = [_image_processor(preprocessing, fit, task, config)]
    elif isinstance(preprocessing, AudioPreprocessing):
        parts = [getattr(preprocessing.features, "extractor", None)]
        # where nothing is written, a tokenizer may still ask for a language
        if preprocessing.encode is not None and task.output_type == "text":
            encode: Any = preprocessing.encode
            parts.append(_as_trained(encode.tokenizer(), {}))
    for folder in folders:
        for part in parts:
            part.save_pretrained(folder)


def _text_tokenizer(tokenizer: Any, examples: PlainExamples | None,
                    output_type: OutputType) -> Any:
    """The tokenizer with the settings that the data module gives ours at every call."""
    settings: dict[str, Any] = {}
    if examples is not None and examples.cut_at is not None:
        settings = {"model_max_length": examples.cut_at, "truncation_side": examples.cut_from}
    if output_type != "text":  # transformers counts positions from the padding
        settings["padding_side"] = "right"
    if output_type == "tokens" and isinstance(tokenizer.backend_tokenizer.pre_tokenizer, ByteLevel):
        settings["add_prefix_space"] = True  # a word is encoded as within a sentence
    return _as_trained(tokenizer, settings)


def _as_trained(tokenizer: Any, settings: dict[str, Any]) -> Any:
    """A copy with settings that it saves: transformers saves those that it was made with."""
    copied = copy.deepcopy(tokenizer)
    # what is written stays as it was written
    for name, value in {**settings, "clean_up_tokenization_spaces": False}.items():
        setattr(copied, name, value)
        copied.init_kwargs[name] = value
    if "add_prefix_space" in settings:
        before = copied.backend_tokenizer.pre_tokenizer
        before.add_prefix_space = True
        copied.backend_tokenizer.pre_tokenizer = before
    return copied


def _image_processor(preprocessing: ImagePreprocessing, fit: ImageFit, task: Task,
                     config: Any) -> Any:
    if fit.processor is not None:
        return fit.processor
    height, width = fit.size
    settings: dict[str, Any] = {
        "image_mean": list(preprocessing.mean), "image_std": list(preprocessing.std),
        "resample": _RESAMPLE[preprocessing.interpolation]}
    size = {"height": height, "width": width}
    if task.output_type == "boxes" and type(config) in IMAGE_PROCESSOR_MAPPING:
        # the architecture's own, which turns outputs into boxes too
        backends: Any = IMAGE_PROCESSOR_MAPPING[type(config)]
        return backends["torchvision"](size=size, do_normalize=True, do_pad=False, **settings)
    if fit.crops:
        raise Incompatible("its images were cropped as no image processor of transformers does it",
                           "give the backbone's preprocessing `fits`")
    return transformers.ViTImageProcessor(size=size, **settings)
