"""Encoded images -> tensors, with every conversion counted and none that loses contrast."""

from __future__ import annotations

import io
import struct
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torchvision.transforms.v2.functional import pil_to_tensor

from ftlab.errors import InputError
from ftlab.interchange import read_bytes

_ORIENTATION = 0x0112  # EXIF tag
_TURN = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
         4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
         6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
         8: Image.Transpose.ROTATE_90}
_SIDEWAYS = (5, 6, 7, 8)
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow's names of what an image may be, whatever its file is called: of its readers, one starts
other programs (EPS), and several are rarely used and rarely looked at."""
_DAMAGE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError,
           Image.DecompressionBombWarning)
# as Pillow's reader of EXIF comes to grief over bytes that are not EXIF
_NOT_EXIF = (SyntaxError, ValueError, TypeError, LookupError, OSError, OverflowError,
             AttributeError, struct.error)


def image_bytes(image: Path | bytes) -> bytes:
    """The encoded image."""
    return (image if isinstance(image, bytes)
            else read_bytes(image, "replace the file or remove the example"))


@contextmanager
def _file(data: bytes | Path, place: str) -> Iterator[Image.Image]:
    """An image's file, opened: the one place that does it.

    Raises:
        InputError: it does not decode, here or inside the context.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about damaged EXIF: `_orientation`
            # of more than 89 million pixels; Pillow itself refuses twice as many
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data,
                            formats=FORMATS) as image:
                if image.format == "TIFF":
                    image.load()  # Pillow turns these upright itself, and then says the new size
                yield image
    except _DAMAGE as error:
        raise InputError(f"{place} does not decode as an image: {_reason(error)}",
                         "replace the file or remove the example") from None


def _orientation(image: Image.Image) -> int | None:
    """How the file says that it lies, 1 for upright; None where its EXIF cannot be read."""
    with warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always", UserWarning)
        try:
            # afresh: of a JPEG whose EXIF it failed to read, Pillow says no more about it
            Image.Exif().load(image.info.get("exif", b""))
            orientation = image.getexif().get(_ORIENTATION, 1)
        except _NOT_EXIF:
            return None
    if isinstance(orientation, int) and orientation in _TURN:
        return orientation
    return None if complaints else 1


def decode_image(data: bytes, place: str, conversions: Counter[str]) -> torch.Tensor:
    """An image as uint8 (3, H, W), or (1, H, W) where it is grey; upright as its EXIF says.

    Args:
        data: the file's bytes.
        place: for messages.
        conversions: counts what was done besides decoding.

    Raises:
        InputError: it does not decode, or has pixels that eight bits do not hold.
    """
    with _file(data, place) as image:
        image.load()
        orientation = _orientation(image)
        if orientation is None:
            conversions["taken as they lie, since their EXIF data cannot be read"] += 1
        elif orientation in _TURN:
            conversions["turned upright as their EXIF data says"] += 1
        return pil_to_tensor(_eight_bits(_turned(image, orientation), place, conversions))


def _turned(image: Image.Image, orientation: int | None) -> Image.Image:
    turn = None if orientation is None else _TURN.get(orientation)
    return image if turn is None else image.transpose(turn)


def _eight_bits(image: Image.Image, place: str, conversions: Counter[str]) -> Image.Image:
    """The image in mode L where it is grey, else RGB."""
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        # convert("RGB") would clip: everything bright becomes white
        # the same scale for all, or images would lose their differences
        raise InputError(f"{place} has pixels of more than 8 bits (mode {image.mode})",
                         "save all images with 8 bits, scaled alike; for values up to 65535: "
                         "Image.fromarray((numpy.asarray(Image.open(path, formats=['PNG', "
                         "'TIFF'])) // 256).astype('uint8'))")
    if image.mode in ("1", "L"):
        conversions["grey, so their three channels are equal"] += 1
        return image.convert("L")
    if image.mode == "RGB":
        return image
    conversions[f"converted from {image.mode} to RGB"] += 1
    return image.convert("RGBA").convert("RGB") if image.mode == "P" else image.convert("RGB")


def decode_places(data: bytes, place: str) -> NDArray[np.uint8]:
    """The values of a picture of one channel, or a palette's numbers, (H, W).

    Args:
        data: the file's bytes.
        place: for messages.

    Raises:
        InputError: it does not decode, or its pixels are colours or have more than eight bits.
    """
    with _file(data, place) as image:
        image.load()
        if image.format == "PNG" and image.mode in ("1", "L", "P"):
            return np.array(image, dtype=np.uint8)
        kind = f"a {image.format}" if image.format != "PNG" else f"of mode {image.mode}"
        raise InputError(f"{place} is {kind}, where a mask has the number of a class in each pixel",
                         "save masks as PNG of one channel with 8 bits, or with a palette: "
                         "Image.fromarray(places.astype('uint8')).save(path)")


def opened(image: torch.Tensor | Path | bytes, place: str) -> torch.Tensor:
    """An image as uint8 (3, H, W); decoded, if it is not.

    Args:
        image: uint8 (1 or 3, H, W), or encoded.
        place: for messages.
    """
    if not isinstance(image, torch.Tensor):
        image = decode_image(image_bytes(image), place, Counter())
    return image.expand(3, -1, -1)


def picture_size(picture: Path | bytes, place: str = "") -> tuple[int, int]:
    """Width and height of an image, upright as its EXIF says, from its header.

    Args:
        picture: its file, or what is in it.
        place: for messages; the file's path unless given.

    Raises:
        InputError: it is not an image.
    """
    with _file(picture, place or str(picture)) as image:
        lies = _orientation(image) in _SIDEWAYS
        return (image.height, image.width) if lies else image.size


def lies_sideways(path: Path) -> bool:
    """Return whether an image's EXIF data turns it by a quarter.

    Raises:
        InputError: it is not an image.
    """
    with _file(path, str(path)) as image:
        return _orientation(image) in _SIDEWAYS


def _reason(error: Exception) -> str:
    """Pillow's words, but for where in memory it read, and that a bomb is an attack."""
    if isinstance(error, UnidentifiedImageError):
        return f"it is of no known kind ({', '.join(FORMATS)})"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"it has more than {Image.MAX_IMAGE_PIXELS:,} pixels"
    return str(error)
