"""How a network wants its images: as the image processor of its folder makes them, class and all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import transformers

from ftlab.backbones.front_end import FILE, MEND, check_told
from ftlab.backbones.image_processors import (
    REFUSALS,
    ProcessorFits,
    first_line,
    resized,
    sizes_alone,
    statistics,
)
from ftlab.backbones.preprocessing import ImagePreprocessing
from ftlab.backbones.untrusted_settings import closed
from ftlab.errors import Incompatible, InputError

_INTERPOLATION = {0: "nearest", 1: "bicubic", 2: "bilinear", 3: "bicubic"}  # PIL's; 1 is Lanczos
# these fit their position embeddings to any size themselves
_INTERPOLATES = ("dinov2", "dinov3", "yolos")
# settings of the folder's own class alone, by the switch that makes it matter
_STATISTICS = {"do_normalize": ("image_mean", "image_std"), "do_resize": ("size", "resample")}


def image_preprocessing(folder: Path, config: Any, label: str) -> ImagePreprocessing:
    """As the folder's image processor does it, whose class fills in what the file leaves out.

    Args:
        folder: with `preprocessor_config.json`, or a `processor_config.json` that holds as much.
        config: the architecture's settings.
        label: whose, for messages.

    Raises:
        InputError: there is no such file, or it leaves out what no class fills in.
        Incompatible: the network wants what `ImagePreprocessing` cannot say.
    """
    if config.model_type == "timm_wrapper":
        raise Incompatible(f"{label}: timm made it and prepares its images", "take it as Timm")
    processor = read_processor(folder, config, label)
    config = getattr(config, "vision_config", config)  # of an image-text model
    if getattr(config, "num_channels", 3) != 3:
        raise Incompatible(f"{label}: it reads {config.num_channels} channels, images have 3",
                           "use another backbone")
    mean, std = statistics(processor, label)
    given, alone = sizes_alone(processor, mean, std, label)
    fixed = _fixed(config)
    size = _pair(config.image_size) if fixed else given or _default_size(processor, config)
    if fixed and given != size:  # the network cannot read another
        processor, given = resized(processor, given, size, label), size
    patch = getattr(config, "patch_size", None)
    resample: Any = getattr(processor, "resample", None)
    interpolation = resample if resample in _INTERPOLATION.values() else \
        _INTERPOLATION.get(resample, "bilinear")
    return ImagePreprocessing("pixel_values", size, mean, std, interpolation, fixed,
                              fits=ProcessorFits(given, alone, mean, std, processor, label),
                              patch_size=patch if isinstance(patch, int) else None)


def read_processor(folder: Path, config: Any, label: str) -> Any:
    """The folder's image processor; its class fills in what the file leaves out.

    Args:
        folder: of the file.
        config: the architecture's settings, which transformers takes the class from where the file
            names none.
        label: whose, for messages.

    Raises:
        InputError: there is none, it cannot be read, or its class is unknown and it leaves out
            what only that defines.
    """
    try:
        with closed():
            processor = transformers.AutoImageProcessor.from_pretrained(
                os.fspath(folder), config=config, trust_remote_code=False)
    except REFUSALS as error:
        if not (folder / FILE).is_file():
            raise InputError(f"{label}: no {FILE} in {folder}, so image_mean, image_std, size and "
                             "resample are not known", MEND) from error
        raise InputError(f"{label}: the image processor in {folder} cannot be read: "
                         f"{first_line(error)}", f"mend its {FILE}") from error
    keys = [key for switch, keys in _STATISTICS.items() if getattr(processor, switch, True)
            for key in keys]
    check_told(folder, "image_processor", processor, keys, label)
    return processor


def _default_size(processor: Any, config: Any) -> tuple[int, int]:
    """For data that stretch images themselves, of a processor that gives many sizes."""
    size = processor.to_dict().get("size") or {}
    if edge := size.get("shortest_edge") or size.get("longest_edge"):
        return edge, edge
    if "height" in size and "width" in size:
        return size["height"], size["width"]
    return _pair(getattr(config, "image_size", None) or 224)


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _fixed(config: Any) -> bool:
    """Learnt positions for one size: patches without a pyramid (ViT, DeiT, BEiT, CLIP)."""
    pyramid = hasattr(config, "depths") or hasattr(config, "hidden_sizes")
    return (hasattr(config, "image_size") and hasattr(config, "patch_size") and not pyramid
            and not config.model_type.startswith(_INTERPOLATES))
