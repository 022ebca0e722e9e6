"""Masks over the patches of images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ftlab.errors import InputError


@dataclass(frozen=True)
class PatchMasking:
    """Hide some squares of each image, to be reconstructed.

    An image is divided into squares of `size` pixels, each of one or more of the network's patches.
    The share of them is drawn, rounded up. Training draws anew in each epoch, from the run's seed,
    the epoch and the example alone; validation and test have the same masks in every run.

    SimMIM: Xie et al. (2022), https://arxiv.org/abs/2111.09886, whose squares are 32 pixels wide
    and whose share is 0.5 to 0.6: with few and small holes, copying what is near would do.

    Args:
        share: of the squares that are hidden, above 0 and below 1.
        size: height and width of a square in pixels, a multiple of the network's patch size.
    """

    share: float = 0.5
    size: int = 32
    views: ClassVar[None] = None  # ever new ones

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"share must be above 0 and below 1, got {self.share}")
        if self.size < 1:
            raise ValueError(f"size must be at least 1, got {self.size}")

    def over(self, image: tuple[int, int], patch: int) -> SquareMasks:
        """The masks of images of one size.

        Args:
            image: height and width in pixels.
            patch: height and width of a patch in pixels.

        Raises:
            InputError: they do not divide into squares of whole patches, or into too few.
        """
        height, width = image
        shown = f"{height}x{width}"
        if height != width or height % patch:
            raise InputError(f"masks need square images of whole patches of {patch} pixels, and "
                             f"these are {shown}", f"set image_size: {-(-height // patch) * patch}")
        fit = [size for size in range(patch, height, patch)
               if height % size == 0 and self._count(height // size) < (height // size) ** 2]
        if self.size not in fit:
            mend = "choose a backbone of smaller patches, or a larger image_size" if not fit else \
                f"set masking: {{size: {min(fit, key=lambda size: abs(size - self.size))}}}"
            raise InputError(f"masking: squares of {self.size} pixels do not divide images of {shown} "
                             f"into a visible and a hidden part of whole patches of {patch}", mend)
        side = height // self.size
        return SquareMasks(side, self.size // patch, self._count(side))

    def _count(self, side: int) -> int:
        return math.ceil(self.share * side**2)


@dataclass(frozen=True)
class SquareMasks:
    """Random masks over the squares of an image.

    Attributes:
        side: squares in a row, and rows of them.
        patches: in a row of a square, and rows of them.
        count: of squares that are hidden.
    """

    side: int
    patches: int
    count: int

    def draw(self, *key: int) -> np.ndarray[Any, Any]:
        """Numbers of the hidden squares, in ascending order; `key` fixes the draw."""
        generator = np.random.default_rng(key)
        return np.sort(generator.choice(self.side**2, self.count, replace=False))

    def of_patches(self, squares: np.ndarray[Any, Any]) -> Tensor:
        """Which patches lie in some squares, row by row, bool (patches of the image,)."""
        hidden = torch.zeros(self.side**2, dtype=torch.bool)
        hidden[torch.from_numpy(squares)] = True
        grid = hidden.view(self.side, self.side)
        return grid.repeat_interleave(self.patches, 0).repeat_interleave(self.patches, 1).flatten()
