"""Images with masked patches, for pre-training on the images of a domain or of a task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from ftlab.backbones.base import Backbone
from ftlab.backbones.preprocessing import ImageFit, ImagePreprocessing
from ftlab.data.base import DataModule
from ftlab.data.batches import Collate, ExampleRow, SplitDataset
from ftlab.data.check_backbone import image_reader
from ftlab.data.examples import Examples, SplitName, Stream, sources
from ftlab.data.image_augment import ImageAugment
from ftlab.data.image_cache import Fit, ImageCache, Normalise
from ftlab.data.image_dataset import FitSize, ImageDataset, StackImages
from ftlab.data.image_store import DecodedImages
from ftlab.data.patch_masking import PatchMasking, SquareMasks
from ftlab.data.sampling import Natural
from ftlab.data.sources import own_splits, read_inputs
from ftlab.data.splits import Split, Subset
from ftlab.data.tables import Column
from ftlab.errors import Incompatible
from ftlab.tasks.masked_pixels import MaskedPixels


class MaskedImages(DataModule):
    """Images of which some patches are masked, to be reconstructed: pre-training goes on with them.

    A source is a folder of images or of folders of them, a table with paths, a package or a hub, as
    `ImageClassification` reads them, whose sizes these are too. Labels are not learned. They only
    stratify the splits that are carved, so that with the source, `split` and `subset` of an
    `ImageClassification` the training images are the same, and none of its test images is seen.

    As a stage it is domain-adaptive pre-training on images of the domain, or task-adaptive
    pre-training on the training images of the task itself (Gururangan et al. 2020,
    https://arxiv.org/abs/2004.10964, on texts), with the masks and the loss of SimMIM:
    Xie et al. (2022), https://arxiv.org/abs/2111.09886

    Args:
        train: source of the training images.
        validation: source; carved from train when absent.
        test: source; carved from train when absent.
        image: the column of the image's path: a name, or a number (from 0) in a file without
            header; not needed for a folder.
        label: column of classes, which tables may lack: a name or a number; null for no strata,
            as of regression.
        image_size: height and width in pixels; the backbone's own when absent.
        masking: which patches are hidden.
        batch_size: images a batch, over all devices.
        split: how absent splits are carved.
        subset: what part of a split is used.
        augment: random change of training images; SimMIM's has min_area 0.67.
        task: loss and metrics.
        workers: processes that load; 0 loads in the main process.
        encoding: of the text in the sources, for instance cp1252 or utf-16; null for UTF-8.
        tests: sources of further test sets by name; their metrics are `test.NAME/...`.
        beside: further examples that training batches bring along, by name.
        columns: what else is known of each example, by name (`group`, `domain`, `client`, `cluster`): a
            table's column, or a pattern of the example's id whose group is the value.
    """

    def __init__(
        self,
        train: str,
        validation: str | None = None,
        test: str | None = None,
        image: str | int = "image",
        label: str | int | None = "label",
        image_size: int | None = None,
        # B008: these defaults are the schema, and are frozen, stateless or copied
        masking: PatchMasking = PatchMasking(),
        batch_size: int = 32,
        split: Split = Split(),
        subset: Subset = Subset(),
        augment: ImageAugment | None = None,
        task: MaskedPixels = MaskedPixels(),
        workers: int = 0,
        encoding: str | None = None,
        tests: dict[str, str] | None = None,
        beside: dict[str, Stream | str] | None = None,
        columns: dict[str, str | int] | None = None,
    ) -> None:
        super().__init__(sources(train, validation, test, tests, beside), task, batch_size, split, subset,
                         Natural(), None, workers, encoding=encoding, beside=beside, columns=columns)
        if image_size is not None and image_size < 1:
            raise ValueError(f"image_size must be at least 1, got {image_size}")
        if augment is not None and (augment.mix != "none" or augment.views):
            raise ValueError("MaskedImages takes no mix and no views of augment: an image is its own "
                             "target, and its masks are ever new")
        self.image = image
        self.label = label
        self.image_size = image_size
        self.augment = masking  # inputs are new in each epoch, also where the images are not
        self._changes = augment
        self._preprocessing: ImagePreprocessing | None = None
        self._fit_with: Fit | None = None
        self._masks: SquareMasks | None = None
        self._images = DecodedImages()

    def load(self) -> None:
        if self.splits:
            return
        self._images = DecodedImages()
        super().load()
        self.note(*self._images.notes())

    def own_splits(self, source: str) -> Sequence[SplitName]:
        return own_splits(source)

    def read(self, split: SplitName, source: str) -> Examples:
        examples = read_inputs(source, split, "image", self.image, self.label)
        self.note(*examples.notes)
        return examples

    @property
    def read_by(self) -> Column:
        return self.image

    def prepare(self, split: SplitName, examples: Examples) -> list[bytes]:
        return self._images.add(split, examples)

    def connect(self, backbone: Backbone, seed: int) -> None:
        """Take the backbone's size, normalisation and patches.

        Raises:
            Incompatible: the backbone reads no images, none of `image_size`, or none in patches.
            InputError: masks of the size do not fit the images.
        """
        size = (self.image_size, self.image_size) if self.image_size else None
        preprocessing = image_reader(backbone, self, size)
        if preprocessing.patch_size is None:
            raise Incompatible(f"MaskedImages masks patches, and {type(backbone).__name__} reads "
                               "images that are not cut into any",
                               "choose a ViT, DeiT or Swin of transformers as the backbone")
        fit = preprocessing.fits(size) if preprocessing.fits is not None else FitSize(
            size or preprocessing.size, v2.InterpolationMode(preprocessing.interpolation))
        masks = self.augment.over(fit.size, preprocessing.patch_size)
        self.load()
        self._seed, self._preprocessing, self._fit_with, self._masks = seed, preprocessing, fit, masks
        self._images.keep(fit, self.still(self._change is not None))

    @property
    def _connected(self) -> tuple[ImagePreprocessing, Fit, SquareMasks]:
        if self._preprocessing is None or self._fit_with is None or self._masks is None:
            raise RuntimeError("the loaders need `connect` with a backbone first")
        return self._preprocessing, self._fit_with, self._masks

    @property
    def _change(self) -> Callable[[Tensor], Tensor] | None:
        preprocessing, fit, _ = self._connected
        return None if self._changes is None else self._changes.transform(
            fit.size, v2.InterpolationMode(preprocessing.interpolation))

    def dataset(self, split: SplitName, training: bool) -> SplitDataset:
        _, fit, masks = self._connected
        change = self._change if training else None
        kept = None if self.plain or change is not None else self._images.kept(split)
        images = ImageDataset(self._images.of(split), self.splits[split].targets, self.seed, change,
                              fit, kept)
        return _Masked(images, masks, training)

    def kept_images(self) -> list[ImageCache]:
        return [] if self.plain else self._images.all_kept(self.still(self._change is not None))

    def collate(self, training: bool) -> Collate:
        wanted, _, _ = self._connected
        images = StackImages(wanted.input_name, Normalise(wanted.mean, wanted.std))
        return Collate(_StackMasked(images), self.task.stack)

    @property
    def image_fit(self) -> ImageFit:
        _, fit, _ = self._connected
        return ImageFit(fit.size, crops=True, processor=getattr(fit, "processor", None))

    def check_predicts(self) -> None:
        raise Incompatible("the run reconstructs masked patches, and predicts nothing of a new image",
                           "predict with a run that was fine-tuned for a task")


@dataclass(frozen=True)
class _StackMasked:
    """Images and masks -> the network's images and `bool_masked_pos` (B, patches)."""

    images: StackImages

    def __call__(self, rows: Sequence[tuple[Any, Tensor]]) -> dict[str, Any]:
        return {**self.images([image for image, _ in rows]),
                "bool_masked_pos": torch.stack([mask for _, mask in rows])}


class _Masked(SplitDataset):
    """Images, or the names of such that are kept, with masks; the target names the masked squares.

    It gives no `shape`: the loss reads the images, so that they are never left out.
    """

    def __init__(self, images: ImageDataset, masks: SquareMasks, training: bool) -> None:
        super().__init__(images.targets, images.seed)
        self.images = images
        self.masks = masks
        self.training = training
        self.names = images.names

    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(epoch)
        self.images.set_epoch(epoch)

    def __getitem__(self, index: int) -> ExampleRow:
        key = (self.seed, self.epoch, index) if self.training else (index,)
        squares = self.masks.draw(*key)
        target = "" if self.training else " ".join(map(str, squares.tolist()))
        return ExampleRow((self.images.input(index), self.masks.of_patches(squares)), target, index,
                          self.epoch)
