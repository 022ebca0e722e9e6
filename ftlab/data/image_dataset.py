"""Decoded images -> the tensors that a network reads."""

from __future__ import annotations

import math
from collections import Counter
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
from ftlab.data.image_decode import decode_image, image_bytes


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
    """Images (3, h, w) -> the network's inputs, one tensor (B, 3, h, w) by name."""

    input_name: str

    def __call__(self, images: Sequence[Tensor]) -> dict[str, Tensor]:
        return {self.input_name: torch.stack(list(images))}


class ImageDataset(SplitDataset):
    """Decoded images, or files decoded on access, as normalised float32 (3, h, w)."""

    alike = True

    def __init__(self, images: Sequence[Tensor | Path | bytes], targets: Sequence[Any], seed: int,
                 change: Callable[[Tensor], Tensor] | None, fit: FitSize,
                 mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__(targets, seed)
        self.images = images
        self.change = change
        self.fit = fit
        self.mean = list(mean)
        self.std = list(std)

    def input(self, index: int) -> Tensor:
        image = self.images[index]
        if not isinstance(image, Tensor):
            image = decode_image(image_bytes(image), str(index), Counter())
        image = image.expand(3, -1, -1)
        if self.change is None:
            image = self.fit(image)
        else:
            with seeded(self.seed, self.epoch, index):
                image = self.change(image)
        return functional.normalize(image.float() / 255, self.mean, self.std)
