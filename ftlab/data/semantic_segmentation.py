"""Images with a class for each pixel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torchvision.transforms import v2

from ftlab.backbones.base import Backbone
from ftlab.backbones.preprocessing import ImageFit, ImagePreprocessing
from ftlab.backbones.source import resolve_path
from ftlab.data.base import DataModule
from ftlab.data.batches import Collate, ExampleRow, SplitDataset
from ftlab.data.box_augment import Stretch
from ftlab.data.check_backbone import image_reader
from ftlab.data.examples import Examples, SplitName, Stream, sources
from ftlab.data.image_cache import ImageCache, Normalise
from ftlab.data.image_dataset import StackImages
from ftlab.data.image_decode import picture_size
from ftlab.data.image_store import DecodedImages
from ftlab.data.mask_augment import MaskAugment, MaskDataset
from ftlab.data.mask_files import MaskCheck, read_masks, split_folders
from ftlab.data.sampling import Natural, Sampling
from ftlab.data.sources import read_new
from ftlab.data.splits import Split, Subset
from ftlab.tasks.base import Task
from ftlab.tasks.class_mask import ClassMask
from ftlab.tasks.segmentation import Segmentation


class SemanticSegmentation(DataModule):
    """Images with masks that say the class of each pixel.

    A source is a folder with a folder of images and one of masks, or `package:NAME/PATH` for such.
    A mask has its image's name, ending in `.png`, and its size; its pixels are numbers of classes,
    in one channel of 8 bits or by a palette. Folders `train`, `val` and `test` in the folder of
    images, and in that of masks, are the splits. Images are resized to the size directly; masks
    follow in training, by nearest neighbours, and keep their own size where predictions are
    measured, to which these are resized.

    Args:
        train: source of the training images.
        validation: source; the training source's own folder, else carved from train when absent.
        test: source; as `validation`.
        images: folder of the images, from the source.
        masks: folder of the masks, from the source.
        classes: names of the values 0, 1, ..., or value -> name, where values of the same name are
            one class; every value must be named. Null makes a class of each value in train.
        ignore: value of the pixels that neither train nor count; null where all do.
        image_size: height and width in pixels, or one number for both; the backbone's own when
            absent.
        batch_size: images a batch, over all devices.
        split: how absent splits are carved.
        subset: what part of a split is used.
        sampling: how training images are drawn.
        augment: random change of training images; null for none.
        task: what is predicted.
        workers: processes that load; 0 loads in the main process.
        tests: sources of further test sets by name; their metrics are `test.NAME/...`.
        beside: further examples that training batches bring along, by name.
        columns: what else is known of each example, by name (`group`, `domain`, `client`, `cluster`): a
            pattern of the example's id whose group is the value.
    """

    pipeline = "image-segmentation"

    def __init__(
        self,
        train: str,
        validation: str | None = None,
        test: str | None = None,
        images: str = "images",
        masks: str = "masks",
        classes: list[str] | dict[str, str] | None = None,
        ignore: int | None = 255,
        image_size: int | tuple[int, int] | None = None,
        batch_size: int = 8,
        # B008: these defaults are the schema, and are frozen, stateless or copied
        split: Split = Split(),
        subset: Subset = Subset(),
        sampling: Sampling = Natural(),
        augment: MaskAugment | None = MaskAugment(),
        task: Task = Segmentation(),
        workers: int = 0,
        tests: dict[str, str] | None = None,
        beside: dict[str, Stream | str] | None = None,
        columns: dict[str, str | int] | None = None,
    ) -> None:
        super().__init__(sources(train, validation, test, tests, beside), task, batch_size, split,
                         subset, sampling, None, workers, beside=beside, columns=columns)
        if ignore is not None and not 0 <= ignore <= 255:
            raise ValueError(f"ignore must be from 0 to 255, or null, got {ignore}")
        size = (image_size, image_size) if isinstance(image_size, int) else image_size
        if size is not None and min(size) < 1:
            raise ValueError(f"image_size must be at least 1, got {image_size}")
        self.images = images
        self.masks = masks
        self.image_size = size
        self.augment = augment if augment is not None and augment.changes else None
        self._check = MaskCheck(_by_value(classes, ignore), ignore)
        self._preprocessing: ImagePreprocessing | None = None
        self._images = DecodedImages()

    def load(self) -> None:
        if self.splits:
            return
        self._images = DecodedImages()
        super().load()
        self.note(*self._images.notes())

    def own_splits(self, source: str) -> Sequence[SplitName]:
        return list(split_folders(resolve_path(source), self.images))

    def read(self, split: SplitName, source: str) -> Examples:
        return read_masks(resolve_path(source), self.images, self.masks, split, self._check)

    def read_new(self, source: str, split: SplitName = "test") -> Examples:
        """Images with masks, whatever split they are in; or a file, or the files of a folder."""
        path = resolve_path(source)
        if (path / self.images).is_dir() and (path / self.masks).is_dir():
            examples = read_masks(path, self.images, self.masks, None, self._check)
            examples.columns = {"path": list(map(str, examples.inputs))}
            return examples
        examples = read_new(str(path / self.images) if (path / self.images).is_dir() else source,
                            "image", "image", "label", split=split)
        examples.labels = [None] * len(examples)  # folders are not masks
        return examples

    def stand_ins(self, examples: Examples) -> list[Any]:
        """Masks of the images' sizes, of which no pixel counts."""
        names = self.splits["train"].labels[0].names if self.splits else ()
        sizes = [picture_size(image, place)
                 for place, image in zip(examples.ids, examples.inputs, strict=True)]
        return [ClassMask.ignored(names, (height, width)) for width, height in sizes]

    def prepare(self, split: SplitName, examples: Examples) -> list[bytes]:
        return self._images.add(split, examples)

    def connect(self, backbone: Backbone, seed: int) -> None:
        """Take the backbone's size and normalisation.

        Raises:
            Incompatible: the backbone reads no images, or none of `image_size`.
        """
        preprocessing = image_reader(backbone, self, self.image_size,
                                     "choose a segmentation network as the backbone")
        self.load()
        self._seed = seed
        self._preprocessing = preprocessing
        self._images.keep(self._fit, self.still(self.augment is not None))

    @property
    def _fit(self) -> Stretch:
        wanted = self._connected
        return Stretch(self.image_size or wanted.size, v2.InterpolationMode(wanted.interpolation))

    def dataset(self, split: SplitName, training: bool) -> SplitDataset:
        augment = self.augment if training else None
        kept = None if self.plain or augment is not None else self._images.kept(split)
        return MaskDataset(self._images.of(split), self.splits[split].targets, self.seed, training,
                           augment, self._fit, kept)

    def kept_images(self) -> list[ImageCache]:
        return [] if self.plain else self._images.all_kept(self.splits)

    def collate(self, training: bool) -> Callable[[Sequence[ExampleRow]], dict[str, Any]]:
        wanted = self._connected
        return Collate(StackImages(wanted.input_name, Normalise(wanted.mean, wanted.std)),
                       self.task.stack)

    @property
    def image_fit(self) -> ImageFit:
        return ImageFit(self._fit.size, crops=False)

    @property
    def _connected(self) -> ImagePreprocessing:
        if self._preprocessing is None:
            raise RuntimeError("the loaders need `connect` with a backbone first")
        return self._preprocessing


def _by_value(classes: list[str] | Mapping[str, str] | None, ignore: int | None) -> dict[int, str] | None:
    """Class names by the values of masks.

    Raises:
        ValueError: a value that no mask has, or that is the ignored one; a class without a name.
    """
    if classes is None:
        return None
    named = dict(enumerate(classes)) if isinstance(classes, list) else classes
    values: dict[int, str] = {}
    for value, name in named.items():
        if not str(value).isdecimal() or int(value) > 255:
            raise ValueError(f"classes: {value!r} is no value of a mask, which are from 0 to 255")
        if int(value) == ignore:
            raise ValueError(f"classes names the value {value}, which ignore leaves out: set another "
                             "ignore, or null for none")
        if not name.strip():
            raise ValueError(f"classes gives {value} an empty name")
        values[int(value)] = name
    return values
