"""The images of a data module: decoded once, so that damage shows before anything runs."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from math import prod
from pathlib import Path

from torch import Tensor

from ftlab.data.examples import Examples, SplitName
from ftlab.data.faults import gathered
from ftlab.data.image_cache import Fit, ImageCache
from ftlab.data.image_decode import decode_image, image_bytes

IN_MEMORY = 2**30
"""Bytes of images, all splits together, up to which they are kept in memory: decoded, and fitted
to the size that a network reads."""


class DecodedImages:
    """The images of all splits: kept decoded where they fit into memory, else as their files."""

    def __init__(self) -> None:
        self._pixels: dict[SplitName, list[Tensor]] = {}
        self._files: dict[SplitName, Sequence[Path | bytes]] = {}
        self._shapes: dict[SplitName, list[tuple[int, int, int]]] = {}
        self._bytes = 0
        self._count = 0
        self._conversions: Counter[str] = Counter()
        self._fit: Fit | None = None
        self._kept: dict[SplitName, ImageCache] = {}

    def add(self, split: SplitName, examples: Examples) -> list[bytes]:
        """Decode a split; sha256 digest of each image's file.

        Raises:
            InputError: images are damaged; with the first of them.
        """
        pixels: list[Tensor] = []
        shapes: list[tuple[int, int, int]] = []

        def decode(place: str, image: Path | bytes) -> bytes:
            data = image_bytes(image)
            where = str(image) if isinstance(image, Path) else f"{split} split, {place}"
            decoded = decode_image(data, where, self._conversions)
            channels, height, width = decoded.shape
            shapes.append((channels, height, width))
            self._bytes += decoded.nbytes
            if self._bytes <= IN_MEMORY:
                pixels.append(decoded)
            return hashlib.sha256(data).digest()

        digests = gathered("images", decode, examples.ids, examples.inputs)
        self._count += len(examples)
        self._pixels[split], self._files[split] = pixels, examples.inputs
        self._shapes[split] = shapes
        if self._bytes > IN_MEMORY:
            self._pixels.clear()
        return digests

    def of(self, split: SplitName) -> Sequence[Tensor | Path | bytes]:
        """The split's images, uint8 (C, H, W), or their files where they do not fit into memory."""
        return self._pixels.get(split) or self._files[split]

    def sizes(self, split: SplitName) -> list[tuple[int, int]]:
        """H and W of the split's images."""
        return [(height, width) for _, height, width in self._shapes[split]]

    def keep(self, fit: Fit, splits: Iterable[SplitName]) -> None:
        """Keep what `fit` makes of those splits for which there is memory, until the next call.

        Nothing is made yet, and nothing resides on a device any more.
        """
        wanted = list(splits)
        if fit != self._fit or not self._kept.keys() <= set(wanted):
            self._fit, self._kept = fit, {}
        room = IN_MEMORY - (self._bytes if self._pixels else 0)
        for split in wanted:
            channels = max((shape[0] for shape in self._shapes[split]), default=1)
            size = prod((len(self._shapes[split]), channels, *fit.size))
            if size > room:
                continue
            room -= size
            if split not in self._kept:
                self._kept[split] = ImageCache(self.of(split), fit, channels)
        for kept in self._kept.values():
            kept.residence = None

    def kept(self, split: SplitName) -> ImageCache | None:
        """The split's images as `keep` has fitted them, if they are kept."""
        return self._kept.get(split)

    def all_kept(self, splits: Iterable[SplitName]) -> list[ImageCache]:
        """The kept ones of several splits."""
        return [self._kept[split] for split in splits if split in self._kept]

    def notes(self) -> list[str]:
        """Notes on what was done to images besides decoding."""
        return [f"{count} of {self._count} images are {conversion}"
                for conversion, count in self._conversions.items()]
