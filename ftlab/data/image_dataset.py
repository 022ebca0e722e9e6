"""Decoded images -> the tensors that a network reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from ftlab.data.batches import SplitDataset
from ftlab.data.image_augment import seeded
from ftlab.data.image_cache import Fit, ImageBatchRef, ImageCache, ImageRef, Normalise
from ftlab.data.image_decode import opened


@dataclass(frozen=True)
class FitSize:
    """uint8 (C, H, W) -> (C, h, w): shrink to cover and crop the centre, or resize directly.

    Attributes:
        size: h and w.
        interpolation: for both ways, antialiased.
    """

    size: tuple[int, int]
    interpolation: v2.InterpolationMode

    def __call__(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        scale = max(self.size[0] / height, self.size[1] / width)
        covering = list(self.size)
        if height >= self.size[0] and width >= self.size[1]:
            # 1e-6: 224 / 300 * 300 may come out just above 224
            covering = [math.ceil(height * scale - 1e-6), math.ceil(width * scale - 1e-6)]
        resized = functional.resize(image, covering, self.interpolation, antialias=True)
        return functional.center_crop(resized, list(self.size))


@dataclass(frozen=True)
class StackImages:
    """Images, uint8 (1 or 3, h, w), -> the network's inputs, float32 (B, 3, h, w), by name.

    Images that are named only are made where the batch is moved.
    """

    input_name: str
    normalise: Normalise

    def __call__(self, images: Sequence[Any]) -> dict[str, Any]:
        if isinstance(images[0], ImageRef):
            return {self.input_name: ImageBatchRef(images, self.normalise)}
        stacked = torch.stack(list(images))
        if not stacked.is_floating_point():  # else nobody reads them (`BlankInputs`)
            stacked = self.normalise(stacked)
        return {self.input_name: stacked}


class ImageDataset(SplitDataset):
    """Images of one size, uint8 (1 or 3, h, w), or the names of such that are kept.

    Args:
        images: decoded, uint8 (C, H, W), or files.
        targets: encoded labels.
        seed: of the run.
        change: random, uint8 (3, H, W) -> (3, h, w); None where there is none.
        fit: the same without chance.
        kept: what `fit` makes of the images, if it is kept; not with `change`.
    """

    def __init__(self, images: Sequence[Tensor | Path | bytes], targets: Sequence[Any], seed: int,
                 change: Callable[[Tensor], Tensor] | None, fit: Fit,
                 kept: ImageCache | None = None) -> None:
        super().__init__(targets, seed)
        self.images = images
        self.change = change
        self.fit = fit
        self.kept = kept
        self.shape = (3, *fit.size)
        self.names = kept is not None and kept.residence is not None

    def input(self, index: int) -> Tensor | ImageRef:
        if self.kept is not None:
            return self.kept.row(index)
        image = opened(self.images[index], str(index))
        if self.change is None:
            return self.fit(image)
        with seeded(self.seed, self.epoch, index):
            return self.change(image)
