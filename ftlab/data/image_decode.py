"""Encoded images -> tensors, with every conversion counted and none that loses contrast."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torchvision.transforms.v2.functional import pil_to_tensor

from ftlab.errors import InputError

_ORIENTATION = 0x0112  # EXIF tag


def image_bytes(image: Path | bytes) -> bytes:
    """The encoded image."""
    try:
        return image if isinstance(image, bytes) else image.read_bytes()
    except OSError as error:
        raise InputError(f"{image!s} cannot be read: {error.strerror}",
                         "replace the file or remove the example") from error


def decode_image(data: bytes, place: str, conversions: Counter[str]) -> torch.Tensor:
    """An image as uint8 (3, H, W), or (1, H, W) where it is grey; upright as its EXIF says.

    Args:
        data: the file's bytes.
        place: for messages.
        conversions: counts what was done besides decoding.

    Raises:
        InputError: it does not decode, or has pixels that eight bits do not hold.
    """
    try:
        with Image.open(io.BytesIO(data)) as opened:
            opened.load()
            image: Image.Image = opened
            if opened.getexif().get(_ORIENTATION, 1) != 1:
                image = ImageOps.exif_transpose(opened)
                conversions["turned upright as their EXIF data says"] += 1
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{place} does not decode as an image: {_reason(error)}",
                         "replace the file or remove the example") from None
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        # convert("RGB") would clip: everything bright becomes white
        raise InputError(f"{place} has pixels of more than 8 bits (mode {image.mode})",
                         "scale it to 8 bits first")
    if image.mode in ("1", "L"):
        conversions["grey, so their three channels are equal"] += 1
        return pil_to_tensor(image.convert("L"))
    if image.mode != "RGB":
        conversions[f"converted from {image.mode} to RGB"] += 1
        image = image.convert("RGBA").convert("RGB") if image.mode == "P" else image.convert("RGB")
    return pil_to_tensor(image)


def opened(image: torch.Tensor | Path | bytes, place: str) -> torch.Tensor:
    """An image as uint8 (3, H, W); decoded, if it is not.

    Args:
        image: uint8 (1 or 3, H, W), or encoded.
        place: for messages.
    """
    if not isinstance(image, torch.Tensor):
        image = decode_image(image_bytes(image), place, Counter())
    return image.expand(3, -1, -1)


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height of an image, upright as its EXIF says, from its header.

    Raises:
        InputError: it is no image.
    """
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(_ORIENTATION, 1) >= 5
            return (image.height, image.width) if turned else image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} does not decode as an image: {_reason(error)}",
                         "replace the file or remove the example") from None


def _reason(error: Exception) -> str:
    """Pillow's words, but for where in memory it read."""
    if isinstance(error, UnidentifiedImageError):
        return "it is of no known kind"
    return str(error)
