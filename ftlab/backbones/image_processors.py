"""Image processors of transformers as parts: what brings images to a size, and what normalises."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor

from ftlab.errors import Incompatible

_IN_PIXELS = ("size", "crop_size", "resize_short")
_SHAPES = ((37, 53), (203, 301), (301, 203), (64, 64))
REFUSALS = (ValueError, TypeError, LookupError, AttributeError, RuntimeError, OSError,
            ImportError, ArithmeticError, StrictDataclassError)
"""As processors of transformers answer settings that they cannot work with."""


@dataclass(frozen=True)
class ProcessorFit:
    """uint8 (3, H, W) -> uint8 (3, h, w), sized and cropped by a processor of transformers.

    Attributes:
        size: h and w.
        mean, std: its normalisation, of values in 0..1, which is undone.
        settings: all that the processor says of itself; equal ones do the same.
        processor: of transformers.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    settings: str
    processor: Any = field(compare=False, repr=False)

    def __call__(self, image: Tensor) -> Tensor:
        values = _processed(self.processor, image)
        return _to_255(values, self.mean, self.std).round_().clamp_(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class ProcessorFits:
    """Makes a `ProcessorFit` for the processor's own size, or for another one.

    Attributes:
        native_size: the one size that it gives; None where that depends on the image.
        alone: whether it does nothing but size and normalise.
        mean, std: its normalisation.
        processor: of transformers.
        label: whose, for messages.
    """

    native_size: tuple[int, int] | None
    alone: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    processor: Any = field(compare=False, repr=False)
    label: str

    def __call__(self, size: tuple[int, int] | None) -> ProcessorFit:
        if not self.alone:
            raise does_more(self.processor, self.label)
        if size is None and self.native_size is None:
            given = {name: value for name, value in self.processor.to_dict().items()
                     if name in ("do_resize", "size", "do_center_crop")}
            raise Incompatible(f"{self.label}: its image processor gives images of many sizes "
                               f"({_shown(given)})", "set image_size of the data")
        wanted = size or self.native_size
        assert wanted is not None
        processor = resized(self.processor, self.native_size, wanted, self.label)
        settings = json.dumps(processor.to_dict(), sort_keys=True, default=str)
        return ProcessorFit(wanted, self.mean, self.std, settings, processor)


def statistics(processor: Any, label: str) -> tuple[Any, Any]:
    """Mean and deviation of each channel, for values in 0..1, as the processor applies them."""
    colours = torch.tensor([[0, 0, 0], [255, 255, 255], [30, 90, 200]], dtype=torch.uint8)
    with _refusing(label):
        plain = [_processed(processor, colour[:, None, None].expand(3, 64, 64))
                 for colour in colours]
    if any(image.ndim != 3 or len(image) != 3 for image in plain):
        raise does_more(processor, label)
    low, high, mixed = (image[:, image.shape[1] // 2, image.shape[2] // 2].double()
                        for image in plain)
    std = 1 / (high - low)
    mean = -low * std
    if not (torch.isfinite(std) & (std != 0)).all():
        raise Incompatible(f"{label}: with its image processor's image_std every image is the "
                           "same", "mend its preprocessor_config.json")
    # also where the channels are in another order (BGR)
    if not torch.allclose((mixed * std + mean) * 255, colours[2].double(), atol=1e-2):
        raise does_more(processor, label)
    measured = tuple(mean.tolist()), tuple(std.tolist())
    written = [_three(getattr(processor, name, None)) for name in ("image_mean", "image_std")]
    for candidate in (written, [(0.0,) * 3, (1.0,) * 3]):
        # as it is written, where that is what happens: measuring rounds
        if all(torch.allclose(torch.tensor(ours), torch.tensor(its), rtol=1e-5, atol=1e-6)
               for ours, its in zip(measured, candidate, strict=True)):
            return candidate[0], candidate[1]
    return measured


def sizes_alone(processor: Any, mean: Sequence[float], std: Sequence[float],
                label: str) -> tuple[tuple[int, int] | None, bool]:
    """How a processor brings images to a size.

    Returns:
        Height and width of whatever it makes, None where they depend on the image; and whether it
        does nothing else to images, besides normalising them.
    """
    generator = torch.Generator().manual_seed(0)
    sizes: set[tuple[int, ...]] = set()
    alone = True
    with _refusing(label):
        for shape in _SHAPES:
            image = torch.randint(256, (3, *shape), dtype=torch.uint8, generator=generator)
            given = _processed(processor, image)
            values = _to_255(given.double(), mean, std)
            sizes.add(tuple(given.shape[1:]))
            alone &= bool((values - values.round()).abs().max() < 0.01)
    (height, width), *others = sizes
    return None if others else (height, width), alone


def does_more(processor: Any, label: str) -> Incompatible:
    """Why a processor is not a size and a normalisation."""
    return Incompatible(f"{label}: {type(processor).__name__} does more to images than size and "
                        "normalise their three channels (red first), which is not supported",
                        "use another backbone")


def resized(processor: Any, given: tuple[int, int] | None, size: tuple[int, int],
             label: str) -> Any:
    """The processor for another size: all that it says in pixels in proportion.

    One whose size depends on the image stretches it to `size`.
    """
    if given == size:
        return processor
    settings = processor.to_dict()
    if given is None:
        settings |= {"do_resize": True, "size": dict(zip(("height", "width"), size, strict=True)),
                     "do_center_crop": False, "do_pad": False}
    else:
        shares = {"height": size[0] / given[0], "width": size[1] / given[1]}
        settings |= {name: _scaled(settings[name], shares) for name in _IN_PIXELS
                     if settings.get(name) is not None}
    with _refusing(label):
        other = type(processor).from_dict(settings)
        shapes = {tuple(_processed(other, torch.zeros(3, *shape, dtype=torch.uint8)).shape[1:])
                  for shape in _SHAPES}
    if shapes != {size}:
        raise Incompatible(f"{label}: its image processor cannot give images of "
                           f"{size[0]}x{size[1]}", "leave out image_size, or take another")
    return other


def _scaled(value: Any, shares: dict[str, float]) -> Any:
    largest = max(shares.values())
    if isinstance(value, int):
        return round(value * largest)
    return {name: round(edge * shares.get(name.removeprefix("max_"), largest))
            for name, edge in dict(value).items() if edge is not None}


def _processed(processor: Any, image: Tensor) -> Tensor:
    """The network's input made from one image, uint8 (3, H, W) -> (3, h, w)."""
    # said, since an image of three rows may be taken for one with its channels last
    given = processor(image, input_data_format="channels_first", return_tensors="pt")
    values: Tensor = given["pixel_values"][0].float()  # integers where it does not normalise
    return values


def _to_255(values: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    shift, scale = (torch.tensor(channel, dtype=values.dtype)[:, None, None]
                    for channel in (mean, std))
    return (values * scale + shift) * 255


@contextmanager
def _refusing(label: str) -> Iterator[None]:
    """Inside, settings that the processor cannot work with are refused."""
    try:
        yield
    except REFUSALS as error:
        raise Incompatible(f"{label}: its image processor cannot prepare an image: "
                           f"{first_line(error)}", "mend its preprocessor_config.json, or use another "
                           "backbone") from error


def first_line(error: Exception) -> str:
    """A library's message, as part of one of ours."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _shown(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name}: {dict(value) if isinstance(value, dict) else value}"
                     for name, value in settings.items())


def _three(values: Any) -> tuple[float, float, float]:
    channels = values if isinstance(values, list | tuple) else (values,) * 3
    if len(channels) != 3 or not all(isinstance(value, int | float) for value in channels):
        return math.nan, math.nan, math.nan
    return float(channels[0]), float(channels[1]), float(channels[2])
