"""How a network wants its images, from Hugging Face's image processor files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ftlab.backbones.hub import read_json
from ftlab.backbones.preprocessing import ImagePreprocessing
from ftlab.errors import Incompatible

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_RESAMPLE = {0: "nearest", 1: "bicubic", 2: "bilinear", 3: "bicubic"}  # PIL's codes; 1 is Lanczos
# these fit their position embeddings to any size themselves
_INTERPOLATES = ("dinov2", "dinov3", "yolos")


def image_preprocessing(folder: Path, config: Any, label: str) -> ImagePreprocessing:
    """From `preprocessor_config.json`; without one the config's size and ImageNet's statistics.

    Raises:
        Incompatible: the network wants what `ImagePreprocessing` cannot say.
    """
    settings = _settings(folder)
    config = getattr(config, "vision_config", config)  # of an image-text model
    if settings.get("do_flip_channel_order"):
        raise Incompatible(f"{label}: it reads images as BGR, which is not supported",
                           "use another backbone")
    if getattr(config, "num_channels", 3) != 3:
        raise Incompatible(f"{label}: it reads {config.num_channels} channels, images have 3",
                           "use another backbone")
    size = _size(settings, config)
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    if settings.get("do_normalize") is False:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    elif settings.get("image_mean") is not None:
        mean, std = _three(settings["image_mean"]), _three(settings["image_std"])
    resample = settings.get("resample", 2)
    return ImagePreprocessing("pixel_values", size, mean, std,
                              _RESAMPLE.get(resample, "bilinear"), _fixed(config))


def _settings(folder: Path) -> dict[str, Any]:
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (folder / name).is_file():
            settings = read_json(folder / name)
            return settings.get("image_processor", settings)
    return {}


def _size(settings: dict[str, Any], config: Any) -> tuple[int, int]:
    if _fixed(config):
        return _pair(config.image_size)
    if settings.get("do_center_crop") and settings.get("crop_size"):
        return _pair(settings["crop_size"])
    return _pair(settings.get("size") or getattr(config, "image_size", None) or 224)


def _pair(size: Any) -> tuple[int, int]:
    if isinstance(size, dict):
        edge = size.get("shortest_edge")
        return (edge, edge) if edge else (size["height"], size["width"])
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _three(values: Any) -> tuple[float, float, float]:
    first, second, third = values
    return float(first), float(second), float(third)


def _fixed(config: Any) -> bool:
    """Learnt positions for one size: patches without a pyramid (ViT, DeiT, BEiT, CLIP)."""
    pyramid = hasattr(config, "depths") or hasattr(config, "hidden_sizes")
    return (hasattr(config, "image_size") and hasattr(config, "patch_size") and not pyramid
            and not config.model_type.startswith(_INTERPOLATES))
