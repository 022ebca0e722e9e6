"""Images with a label each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torchvision.transforms import v2

from ftlab.backbones.base import Backbone
from ftlab.backbones.export_code import PlainExamples
from ftlab.backbones.preprocessing import ImageFit, ImagePreprocessing, Preprocessing
from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.data.batches import Collate, ExampleRow, SplitDataset
from ftlab.data.check_backbone import image_reader
from ftlab.data.examples import Examples, SplitName, Stream, sources
from ftlab.data.export_snippets import AT_ONCE, with_images
from ftlab.data.image_augment import ImageAugment, MixCollate
from ftlab.data.image_cache import Fit, ImageCache, Normalise
from ftlab.data.image_dataset import FitSize, ImageDataset, StackImages
from ftlab.data.image_store import DecodedImages
from ftlab.data.sampling import Natural, Sampling
from ftlab.data.sources import own_splits, read, read_new
from ftlab.data.splits import Split, Subset
from ftlab.data.tables import Column
from ftlab.tasks.base import Task
from ftlab.tasks.classification import Classification

_FIRST = "the loaders need `connect` with a backbone first"
_PREDICT = """
def predict(images):  # {size} at once
    images = list(images)
    outputs = torch.empty(len(images), {width})
    for start in range(0, len(images), {size}):
        ready = torch.stack([prepare(read(image)) for image in images[start:start + {size}]])
        with torch.no_grad():
            outputs[start:start + {size}] = compute({name}=ready).float()
    return tell(outputs)
"""


class ImageClassification(DataModule):
    """Images with one label each.

    A source is a folder of class folders of images, a .csv, .tsv, .jsonl or .parquet file with
    paths (from the file's folder), `package:NAME/PATH` for such a folder or file within an
    installed package, or `hf:NAME[:CONFIG[:SPLIT]]`. For evaluation a network of transformers gets
    its images from its own image processor. For another one an image is shrunk until its size is
    just covered and cropped in the centre; one that is smaller in height or width is resized to the
    size directly. `load` decodes every image once; grey ones get equal channels.

    Args:
        train: source of the training examples.
        validation: source; carved from train when absent.
        test: source; carved from train when absent.
        image: the column of the image's path: a name, or a number (from 0) in a file without
            header; not needed for a folder.
        label: the label's column, a name or a number.
        image_size: height and width in pixels; the backbone's own when absent.
        batch_size: images a batch, over all devices.
        split: how absent splits are carved.
        subset: what part of a split is used.
        sampling: how training images are drawn.
        augment: random change of training images.
        classes: raw label -> class name, to rename or merge; every raw label must be named.
        task: what is predicted.
        workers: processes that load; 0 loads in the main process.
        encoding: of the text in the sources, for instance cp1252 or utf-16; null for UTF-8.
        tests: sources of further test sets by name; their metrics are `test.NAME/...`.
        beside: further examples that training batches bring along, by name.
        columns: what else is known of each example, by name (`group`, `domain`, `client`, `cluster`): a
            table's column, or a pattern of the example's id whose group is the value.
    """

    pipeline = "image-classification"
    labelled = "image"

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
        encoding: str | None = None,
        tests: dict[str, str] | None = None,
        beside: dict[str, Stream | str] | None = None,
        columns: dict[str, str | int] | None = None,
    ) -> None:
        super().__init__(sources(train, validation, test, tests, beside), task,
                         batch_size, split, subset, sampling, classes, workers, encoding=encoding,
                         beside=beside, columns=columns)
        if image_size is not None and image_size < 1:
            raise ValueError(f"image_size must be at least 1, got {image_size}")
        self.image = image
        self.label = label
        self.image_size = image_size
        self.augment = augment
        self._preprocessing: ImagePreprocessing | None = None
        self._fit_with: Fit | None = None
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
        examples, notes = read(source, split, "image", self.image, self.label)
        self.note(*notes)
        return examples

    def read_new(self, source: str, split: SplitName = "test") -> Examples:
        return read_new(source, "image", self.image, self.label, split=split)

    @property
    def read_by(self) -> Column:
        return self.image

    def prepare(self, split: SplitName, examples: Examples) -> list[bytes]:
        return self._images.add(split, examples)

    def connect(self, backbone: Backbone, seed: int) -> None:
        """Take the backbone's size and normalisation.

        Raises:
            Incompatible: the backbone reads no images, or none of `image_size`.
        """
        preprocessing = image_reader(backbone, self, self._size)
        self.load()
        self._seed = seed
        self._preprocessing = preprocessing
        self._fit_with = preprocessing.fits(self._size) if preprocessing.fits is not None else \
            FitSize(self._size or preprocessing.size, self._interpolation)
        random = self._change(training=True) is not None
        self._images.keep(self._fit, self.still(random))

    @property
    def _fit(self) -> Fit:
        if self._fit_with is None:
            raise RuntimeError(_FIRST)
        return self._fit_with

    @property
    def _interpolation(self) -> v2.InterpolationMode:
        return v2.InterpolationMode(self._connected.interpolation)

    def _change(self, training: bool) -> Callable[[Tensor], Tensor] | None:
        augment = self.augment if training else None
        if augment is None:
            return None
        return augment.transform(self._fit.size, self._interpolation)

    def dataset(self, split: SplitName, training: bool) -> SplitDataset:
        change = self._change(training)
        kept = None if self.plain or change is not None else self._images.kept(split)
        return ImageDataset(self._images.of(split), self.splits[split].targets, self.seed, change,
                            self._fit, kept)

    def kept_images(self) -> list[ImageCache]:
        # mixtures are made where batches are collated
        return [] if self.plain else self._images.all_kept(self.still(self.mixes))

    @property
    def mixes(self) -> bool:
        return self.augment is not None and self.augment.mix != "none"

    def collate(self, training: bool) -> Callable[[Sequence[ExampleRow]], dict[str, Any]]:
        wanted = self._connected
        name, normalise = wanted.input_name, Normalise(wanted.mean, wanted.std)
        plain = Collate(StackImages(name, normalise), self.task.stack)
        mixture = self.augment.mixture(self.task.outputs) if training and self.augment else None
        return MixCollate(plain, mixture, name, self.seed) if mixture is not None else plain

    @property
    def image_fit(self) -> ImageFit:
        fit = self._fit
        return ImageFit(fit.size, crops=True, processor=getattr(fit, "processor", None))

    def export_code(self, preprocessing: Preprocessing, model: TaskModel) -> PlainExamples | None:
        if (self.task.output_type != "vector" or self.task.export_code() is None
                or not isinstance(preprocessing, ImagePreprocessing)):
            return None
        code = _PREDICT.format(name=preprocessing.input_name, size=AT_ONCE, width=self.task.outputs)
        return PlainExamples(with_images(code, preprocessing, self.image_fit, model), "images",
                             "image")

    @property
    def _size(self) -> tuple[int, int] | None:
        return (self.image_size, self.image_size) if self.image_size else None

    @property
    def _connected(self) -> ImagePreprocessing:
        if self._preprocessing is None:
            raise RuntimeError(_FIRST)
        return self._preprocessing
