"""Images with a label each."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torchvision.transforms import v2

from ftlab.backbones.base import Backbone
from ftlab.backbones.preprocessing import ImagePreprocessing
from ftlab.data.base import DataModule, Examples, SplitName
from ftlab.data.batches import Collate, Row, SplitDataset
from ftlab.data.image_augment import ImageAugment, MixCollate
from ftlab.data.image_dataset import FitSize, ImageDataset, StackImages
from ftlab.data.image_decode import decode_image, image_bytes
from ftlab.data.sampling import Natural, Sampling
from ftlab.data.sources import own_splits, read
from ftlab.data.splits import Split, Subset
from ftlab.errors import Incompatible
from ftlab.tasks.base import Task
from ftlab.tasks.classification import Classification

IN_MEMORY = 2**30
"""Bytes of decoded images, all splits together, up to which they are kept in memory."""


class ImageClassification(DataModule):
    """Images with one label each.

    A source is a folder of class folders of images, a .csv, .tsv, .jsonl or .parquet file with
    paths (from the file's folder), `package:NAME/PATH` for such a folder or file within an
    installed package, or `hf:NAME[:CONFIG[:SPLIT]]`. For evaluation an image is shrunk until its
    size is just covered and cropped in the centre; one that is smaller in height or width is
    resized to the size directly. `load` decodes every image once; grey ones get equal channels.

    Args:
        train: source of the training examples.
        validation: source; carved from train when absent.
        test: source; carved from train when absent.
        image: the column of the image's path: a name, or a number (from 0) in a file without
            header; not needed for a folder.
        label: the label's column, likewise.
        image_size: height and width in pixels; the backbone's own when absent.
        batch_size: images a batch and a rank.
        split: how absent splits are carved.
        subset: what part of a split is used.
        sampling: how training images are drawn.
        augment: random change of training images.
        classes: raw label -> class name, to rename or merge; every raw label must be named.
        task: what is predicted.
        workers: processes that load; 0 loads in the main process.
    """

    def __init__(
        self,
        train: str,
        validation: str | None = None,
        test: str | None = None,
        image: str | int = "image",
        label: str | int = "label",
        image_size: int | None = None,
        batch_size: int = 32,
        # B008: these defaults are the schema, and are frozen, stateless or copied
        split: Split = Split(),
        subset: Subset = Subset(),
        sampling: Sampling = Natural(),
        augment: ImageAugment | None = None,
        classes: dict[str, str] | None = None,
        task: Task = Classification(),
        workers: int = 0,
    ) -> None:
        super().__init__({"train": train, "validation": validation, "test": test}, task,
                         batch_size, split, subset, sampling, classes, workers)
        if image_size is not None and image_size < 1:
            raise ValueError(f"image_size must be at least 1, got {image_size}")
        self.image = image
        self.label = label
        self.image_size = image_size
        self.augment = augment
        self._preprocessing: ImagePreprocessing | None = None
        self._pixels: dict[SplitName, list[Tensor]] = {}
        self._pixel_bytes = 0
        self._conversions: Counter[str] = Counter()

    def load(self) -> None:
        if self.splits:
            return
        self._pixels = {}
        self._pixel_bytes = 0
        self._conversions = Counter()
        super().load()
        total = sum(len(examples) for examples in self.splits.values())
        for conversion, count in self._conversions.items():
            self.note(f"{count} of {total} images are {conversion}")

    def own_splits(self, source: str) -> Sequence[SplitName]:
        return own_splits(source)

    def read(self, split: SplitName, source: str) -> Examples:
        examples, notes = read(source, split, "image", self.image, self.label)
        for note in notes:
            self.note(note)
        return examples

    def prepare(self, split: SplitName, examples: Examples) -> list[bytes]:
        """Decode every image once, so that a damaged one is found before anything runs."""
        digests = []
        pixels: list[Tensor] = []
        for place, image in zip(examples.ids, examples.inputs, strict=True):
            data = image_bytes(image)
            digests.append(hashlib.sha256(data).digest())
            where = str(image) if isinstance(image, Path) else f"{split} split, {place}"
            decoded = decode_image(data, where, self._conversions)
            self._pixel_bytes += decoded.nbytes
            if self._pixel_bytes <= IN_MEMORY:
                pixels.append(decoded)
        self._pixels[split] = pixels
        if self._pixel_bytes > IN_MEMORY:
            self._pixels.clear()
        return digests

    def connect(self, backbone: Backbone, seed: int) -> None:
        """Take the backbone's size and normalisation.

        Raises:
            Incompatible: the backbone reads no images, or none of `image_size`.
        """
        preprocessing = backbone.preprocessing
        name = type(backbone).__name__
        if not isinstance(preprocessing, ImagePreprocessing):
            raise Incompatible(f"ImageClassification yields images; {name} reads texts",
                               "choose an image model as the backbone")
        own = preprocessing.size
        if self.image_size and preprocessing.fixed_size and own != (self.image_size,) * 2:
            raise Incompatible(
                f"image_size {self.image_size}: {name} reads images of {own[0]}x{own[1]} only",
                "leave out image_size")
        self.load()
        self._seed = seed
        self._preprocessing = preprocessing

    def dataset(self, split: SplitName, training: bool) -> SplitDataset:
        examples = self.splits[split]
        preprocessing = self._connected
        size = (self.image_size,) * 2 if self.image_size else preprocessing.size
        interpolation = v2.InterpolationMode(preprocessing.interpolation)
        augment = self.augment if training else None
        change = augment.transform(size, interpolation) if augment is not None else None
        return ImageDataset(self._pixels.get(split) or examples.inputs, examples.targets, self.seed,
                       change, FitSize(size, interpolation), preprocessing.mean, preprocessing.std)

    def collate(self, training: bool) -> Callable[[Sequence[Row]], dict[str, Any]]:
        name = self._connected.input_name
        plain = Collate(StackImages(name), self.task.stack)
        mixture = self.augment.mixture(self.task.outputs) if training and self.augment else None
        return MixCollate(plain, mixture, name, self.seed) if mixture is not None else plain

    @property
    def _connected(self) -> ImagePreprocessing:
        if self._preprocessing is None:
            raise RuntimeError("the loaders need `connect` with a backbone first")
        return self._preprocessing
