"""Images as a network reads them but for normalisation: each made once a process, and kept."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from ftlab.data.image_decode import opened


class Fit(Protocol):
    """uint8 (3, H, W) -> (3, h, w), the same every time; equal where it does the same."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""

    def __call__(self, image: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Normalise:
    """uint8 (B, 1 or 3, h, w) -> float32 (B, 3, h, w).

    Attributes:
        mean, std: of the channels, for values in 0..1.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: Tensor) -> Tensor:
        whole, mean, std = _constants(self, images.device)
        values = images.expand(-1, 3, -1, -1).to(
            torch.float32, memory_format=torch.contiguous_format)
        # in place: fresh memory for every step costs several times its arithmetic
        return functional.normalize(values.div_(whole), mean, std, inplace=True)


@lru_cache(maxsize=8)  # or each batch would make a GPU wait for them
def _constants(of: Normalise, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    # 255 too: CUDA multiplies by the reciprocal of a plain number, which rounds otherwise
    whole, mean, std = (torch.tensor(value, device=device) for value in (255.0, of.mean, of.std))
    return whole, mean, std


class ImageCache:
    """The images of a split, uint8 (C, h, w), each made when it is first asked for.

    They lie in memory that loader processes share: what one has made, all have.

    Args:
        images: uint8 (C, H, W), or files.
        fit: makes them.
        channels: C, which is 1 where those of every image are equal, else 3.
    """

    def __init__(self, images: Sequence[Tensor | Path | bytes], fit: Fit, channels: int) -> None:
        self._images, self._fit = images, fit
        self._pixels = _shared((len(images), channels, *fit.size))
        self._made = _shared((len(images),))
        self.residence: DevicePlacement | None = None

    @property
    def bytes(self) -> int:
        return self._pixels.nbytes

    def __getitem__(self, index: int) -> Tensor:
        if not self._made[index]:
            self._pixels[index] = self._make(index)
            self._made[index] = 1  # after it: another process may be looking
        return self._pixels[index]

    def _make(self, index: int) -> Tensor:
        image = self._fit(opened(self._images[index], str(index)))
        return image[: self._pixels.shape[1]]

    def row(self, index: int) -> Tensor | ImageRef:
        """An image on its way into a batch, or its name where images reside."""
        return self[index] if self.residence is None else ImageRef(self, index)

    def reside(self, device: torch.device) -> None:
        """Have batches made on a device, of images that lie there, each from its first use on."""
        there = torch.empty_like(self._pixels, device=device)
        self.residence = DevicePlacement(there, torch.zeros(len(there), dtype=torch.bool))

    def gather(self, index: Tensor, device: torch.device) -> Tensor:
        """Images (B, C, h, w) on a device.

        Args:
            index: (B,), on the CPU.
            device: any; images are copied to where they do not reside.
        """
        there = self.residence
        if there is None or there.pixels.device != device:
            return torch.stack([self[i] for i in index.tolist()]).to(device)
        new = index[~there.copied[index]]
        if len(new):
            # those that only a device needs take no room here
            made = [self._pixels[i] if self._made[i] else self._make(i) for i in new.tolist()]
            there.pixels[new.to(device)] = torch.stack(made).to(device)
            there.copied[new] = True
        return there.pixels.index_select(0, index.to(device, non_blocking=True))


@dataclass(frozen=True)
class DevicePlacement:
    """Where images lie on a device.

    Attributes:
        pixels: uint8 (N, C, h, w), there.
        copied: bool (N,), on the CPU: true for those that it has.
    """

    pixels: Tensor
    copied: Tensor


class ImageRef(NamedTuple):
    """An image by name."""

    kept: ImageCache
    position: int


class ImageBatchRef:
    """A batch's images by name. They come to be where it is moved: Lightning moves what has `to`.

    Args:
        images: of one split.
        normalise: applied to them.
    """

    def __init__(self, images: Sequence[ImageRef], normalise: Normalise) -> None:
        self.kept, self.normalise = images[0].kept, normalise
        self.index = torch.tensor([image.position for image in images])

    def pin_memory(self) -> ImageBatchRef:
        """Let the names cross while the GPU computes, as the loader does with tensors."""
        self.index = self.index.pin_memory()
        return self

    def to(self, device: torch.device) -> Tensor:
        """Normalised (B, 3, h, w)."""
        return self.normalise(self.kept.gather(self.index, device))


def _shared(shape: tuple[int, ...]) -> Tensor:
    """Zeros, uint8, that processes share; they take room as they are written."""
    memory = mmap.mmap(-1, max(1, prod(shape)))
    return torch.frombuffer(memory, dtype=torch.uint8, count=prod(shape)).view(shape)
