"""The images of a data module: decoded once, so that damage shows before anything runs."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from ftlab.data.examples import Examples, SplitName
from ftlab.data.image_decode import decode_image, image_bytes

IN_MEMORY = 2**30
"""Bytes of decoded images, all splits together, up to which they are kept in memory."""


class DecodedImages:
    """The images of all splits: kept decoded where they fit into memory, else as their files."""

    def __init__(self) -> None:
        self._pixels: dict[SplitName, list[Tensor]] = {}
        self._bytes = 0
        self._count = 0
        self._conversions: Counter[str] = Counter()

    def add(self, split: SplitName, examples: Examples) -> list[bytes]:
        """Decode a split; sha256 digest of each image's file.

        Raises:
            InputError: an image is damaged.
        """
        digests: list[bytes] = []
        pixels: list[Tensor] = []
        for place, image in zip(examples.ids, examples.inputs, strict=True):
            data = image_bytes(image)
            digests.append(hashlib.sha256(data).digest())
            where = str(image) if isinstance(image, Path) else f"{split} split, {place}"
            decoded = decode_image(data, where, self._conversions)
            self._bytes += decoded.nbytes
            if self._bytes <= IN_MEMORY:
                pixels.append(decoded)
        self._count += len(examples)
        self._pixels[split] = pixels
        if self._bytes > IN_MEMORY:
            self._pixels.clear()
        return digests

    def of(self, split: SplitName,
           files: Sequence[Path | bytes]) -> Sequence[Tensor | Path | bytes]:
        """The split's images, uint8 (C, H, W), or `files` where they do not fit into memory."""
        return self._pixels.get(split) or files

    def notes(self) -> list[str]:
        """What was done to images besides decoding."""
        return [f"{count} of {self._count} images are {conversion}"
                for conversion, count in self._conversions.items()]
