"""Checks that a backbone can read a data module's examples."""

from __future__ import annotations

from typing import NoReturn

from ftlab.backbones.base import Backbone
from ftlab.backbones.preprocessing import (
    AudioPreprocessing,
    ImagePreprocessing,
    Preprocessing,
    TextPreprocessing,
)
from ftlab.errors import Incompatible, InputError

_READS: dict[type[Preprocessing], str] = {
    TextPreprocessing: "texts", ImagePreprocessing: "images", AudioPreprocessing: "sound"}


def text_reader(backbone: Backbone, module: object, mend: str = "choose a language model as the "
                "backbone", **lengths: int) -> TextPreprocessing:
    """How a backbone reads texts.

    Args:
        backbone: to read them.
        module: whose they are, for messages.
        mend: what to advise where it reads something else.
        lengths: the module's arguments that name a number of tokens.

    Raises:
        Incompatible: it reads no texts.
        InputError: one of `lengths` is above what it reads.
    """
    preprocessing = backbone.preprocessing
    if not isinstance(preprocessing, TextPreprocessing):
        _refuse(backbone, module, "texts", mend)
    for name, length in lengths.items():
        if length > preprocessing.longest:
            raise InputError(f"{name} {length} is above the {preprocessing.longest} tokens that "
                             f"{type(backbone).__name__} reads",
                             f"set {name}: {preprocessing.longest}")
    return preprocessing


def image_reader(backbone: Backbone, module: object, size: tuple[int, int] | None,
                 mend: str = "choose an image model as the backbone") -> ImagePreprocessing:
    """How a backbone reads images.

    Args:
        backbone: to read them.
        module: whose they are, for messages.
        size: height and width that the module names; None takes the backbone's.
        mend: what to advise where it reads something else.

    Raises:
        Incompatible: it reads no images, or none of that size.
    """
    preprocessing = backbone.preprocessing
    if not isinstance(preprocessing, ImagePreprocessing):
        _refuse(backbone, module, "images", mend)
    name, given = type(backbone).__name__, preprocessing.size
    if size is not None and size != given and preprocessing.fixed_size:
        raise Incompatible(f"image_size {_shown(size)}: {name} reads images of "
                           f"{_shown(given)} only",
                           "leave out image_size, or set the backbone's own where it has one")
    height, width = size or given
    multiple = preprocessing.multiple
    if height % multiple or width % multiple:
        fit = tuple(max(multiple, round(edge / multiple) * multiple) for edge in (height, width))
        raise Incompatible(f"image_size {_shown((height, width))}: {name} reads sizes that are "
                           f"multiples of {multiple}",
                           f"set image_size: {fit[0] if fit[0] == fit[1] else list(fit)}")
    return preprocessing


def sound_reader(backbone: Backbone, module: object) -> AudioPreprocessing:
    """How a backbone reads sound.

    Raises:
        Incompatible: it reads something else.
    """
    preprocessing = backbone.preprocessing
    if not isinstance(preprocessing, AudioPreprocessing):
        _refuse(backbone, module, "sound", "choose a speech model as the backbone")
    return preprocessing


def _refuse(backbone: Backbone, module: object, what: str, mend: str) -> NoReturn:
    reads = _READS[type(backbone.preprocessing)]
    raise Incompatible(f"{type(module).__name__} yields {what}; {type(backbone).__name__} reads "
                       f"{reads}", mend)


def _shown(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
