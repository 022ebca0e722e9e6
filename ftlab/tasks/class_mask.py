"""A class for each pixel of an image, kept small."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IGNORED_PIXEL = 255
"""Place of a pixel that neither trains nor counts; a mask of eight bits has no more classes than places."""


@dataclass(frozen=True)
class ClassMask:
    """The class of each pixel of an image.

    Attributes:
        names: of the classes.
        size: height and width.
        packed: places in `names` row by row, or `IGNORED_PIXEL`, compressed.
        pixels: how many there are of each class.
    """

    names: tuple[str, ...]
    size: tuple[int, int]
    packed: bytes
    pixels: tuple[int, ...]

    @classmethod
    def of(cls, names: Sequence[str], places: NDArray[np.uint8]) -> ClassMask:
        """The mask of places (H, W)."""
        counts = np.bincount(places.reshape(-1), minlength=256)[:len(names)]
        height, width = places.shape
        return cls(tuple(names), (height, width), zlib.compress(places.tobytes(), 1),
                   tuple(counts.tolist()))

    @classmethod
    def ignored(cls, names: Sequence[str], size: tuple[int, int]) -> ClassMask:
        """A mask of which no pixel counts."""
        return cls.of(names, np.full(size, IGNORED_PIXEL, np.uint8))

    @property
    def places(self) -> NDArray[np.uint8]:
        """(H, W), of its own."""
        return np.frombuffer(zlib.decompress(self.packed), np.uint8).reshape(self.size).copy()

    @property
    def present(self) -> list[str]:
        """Names of the classes that it has pixels of."""
        return [name for name, count in zip(self.names, self.pixels, strict=True) if count]

    def __str__(self) -> str:
        """The same for equal masks, as a data set's fingerprint reads it."""
        digest = hashlib.sha256(zlib.decompress(self.packed)).hexdigest()
        return f"{self.size[0]}x{self.size[1]} {'|'.join(self.names)} {digest}"
