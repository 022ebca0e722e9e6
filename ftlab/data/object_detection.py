"""Images with labelled boxes."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from torchvision.transforms import v2

from ftlab.backbones.base import Backbone
from ftlab.backbones.export_code import PlainExamples
from ftlab.backbones.preprocessing import ImageFit, ImagePreprocessing, Preprocessing
from ftlab.backbones.source import resolve_path
from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.data.batches import Collate, ExampleRow, SplitDataset
from ftlab.data.box_annotations import LISTS, BadBoxes, BoxCheck, read_coco, read_voc
from ftlab.data.box_augment import BoxAugment, BoxDataset, Stretch
from ftlab.data.check_backbone import image_reader
from ftlab.data.examples import Examples, SplitName, Stream, sources
from ftlab.data.export_snippets import with_images
from ftlab.data.image_cache import ImageCache, Normalise
from ftlab.data.image_dataset import StackImages
from ftlab.data.image_store import DecodedImages
from ftlab.data.sampling import Natural
from ftlab.data.sources import read_new
from ftlab.data.splits import Split, Subset
from ftlab.data.yolo_labels import read_yolo, split_keys
from ftlab.errors import InputError
from ftlab.tasks.base import Task
from ftlab.tasks.boxes import Box
from ftlab.tasks.detection import Detection
from ftlab.tasks.spelling import renamed

_PREDICT = """
def predict(images):  # the objects of each, in pixels of its file, and their scores
    found, scores = [], []
    for image in map(read, images):
        with torch.no_grad():
            boxes, labels, sure = detect({name}=prepare(image)[None])
        height, width = image.shape[-2:]
        boxes = boxes * torch.tensor([width / {width}, height / {height}] * 2)
        objects, sure = tell(boxes, labels, sure)
        found.append(objects)
        scores.append(sure)
    return found, scores
"""


class ObjectDetection(DataModule):
    """Images with the boxes of their objects.

    A source is a folder in Pascal VOC's layout (`Annotations/*.xml`, `JPEGImages`; the lists in
    `ImageSets/Main` are the splits), a COCO file of instances, a `data.yaml` of YOLO (`names`,
    `train`, `val`, `test`, whose images have their labels in text files), or `package:NAME/PATH`
    for any of them.
    Images are resized to the size directly; intersections over union do not change by it, and
    prediction records are in the pixels of the image's file. Crowds (COCO) and difficult objects
    (VOC) neither train nor count. Coordinates are taken as they are, from 0 to width and height.

    Args:
        train: source of the training images.
        validation: source; the training source's own list, else carved from train when absent.
        test: source; as `validation`.
        format: `voc`, `coco` or `yolo`; null takes voc for a folder, yolo for a .yaml file, coco
            for another.
        images: folder of a COCO file's images; beside the file when absent.
        image_size: height and width in pixels, or one number for both; the backbone's own when
            absent.
        batch_size: images a batch, over all devices.
        split: how absent splits are carved.
        subset: what part of a split is used.
        augment: random change of training images.
        bad_boxes: what to do with boxes outside their image or of no area: `refuse`, `clip`
            (cut them to the image; those of no area are dropped) or `drop`.
        classes: raw class -> class name, to rename or merge; every raw class must be named.
        task: what is predicted.
        workers: processes that load; 0 loads in the main process.
        encoding: of the text in the sources, for instance cp1252 or utf-16; null for UTF-8.
        tests: sources of further test sets by name; their metrics are `test.NAME/...`.
        beside: further examples that training batches bring along, by name.
        columns: what else is known of each example, by name (`group`, `domain`, `client`, `cluster`): a
            table's column, or a pattern of the example's id whose group is the value.
    """

    pipeline = "object-detection"

    def __init__(
        self,
        train: str,
        validation: str | None = None,
        test: str | None = None,
        format: Literal["voc", "coco", "yolo"] | None = None,
        images: str | None = None,
        image_size: int | tuple[int, int] | None = None,
        batch_size: int = 8,
        # B008: these defaults are the schema, and are frozen, stateless or copied
        split: Split = Split(),
        subset: Subset = Subset(),
        augment: BoxAugment = BoxAugment(),
        bad_boxes: BadBoxes = "refuse",
        classes: dict[str, str] | None = None,
        task: Task = Detection(),
        workers: int = 0,
        encoding: str | None = None,
        tests: dict[str, str] | None = None,
        beside: dict[str, Stream | str] | None = None,
        columns: dict[str, str | int] | None = None,
    ) -> None:
        super().__init__(sources(train, validation, test, tests, beside), task,
                         batch_size, split, subset, Natural(), classes, workers, encoding=encoding,
                         beside=beside, columns=columns)
        if format not in (None, "voc", "coco", "yolo"):
            raise ValueError(f"format must be voc, coco or yolo, got {format!r}")
        if bad_boxes not in get_args(BadBoxes):
            raise ValueError(f"bad_boxes must be one of {get_args(BadBoxes)}, got {bad_boxes!r}")
        size = (image_size, image_size) if isinstance(image_size, int) else image_size
        if size is not None and min(size) < 1:
            raise ValueError(f"image_size must be at least 1, got {image_size}")
        self.format = format
        self.images = images
        self.image_size = size
        self.augment = augment
        self.bad_boxes = bad_boxes
        self._check = BoxCheck(bad_boxes, Counter())
        self._preprocessing: ImagePreprocessing | None = None
        self._images = DecodedImages()

    def load(self) -> None:
        if self.splits:
            return
        self._check = BoxCheck(self.bad_boxes, Counter())
        self._images = DecodedImages()
        super().load()
        self.note(*self._images.notes())
        self.note(*(f"{count} boxes outside their image or of no area {what}"
                    for what, count in self._check.changed.items()))
        if self._check.polygons:
            self.note(f"{self._check.polygons} objects are polygons, of which the boxes are taken")

    def own_splits(self, source: str) -> Sequence[SplitName]:
        path = resolve_path(source)
        if self._kind(path) == "yolo":
            return split_keys(path)
        lists = path / "ImageSets" / "Main"
        return [split for split, name in LISTS.items() if (lists / f"{name}.txt").is_file()]

    def read(self, split: SplitName, source: str) -> Examples:
        examples = self._annotated(split, source)
        if not _has_objects(examples):
            raise InputError(f"{split} split of {source}: no image has an object",
                             "name annotated images")
        return examples

    def _annotated(self, split: SplitName | None, source: str) -> Examples:
        """The images of a split, or all, with their objects."""
        path = resolve_path(source)
        kind = self._kind(path)
        if kind == "voc":
            annotations = read_voc(path, split, self._check)
        elif not path.is_file():
            raise InputError(f"{source} is no file", "name a COCO .json file or YOLO's data.yaml, or "
                             "set format: voc")
        elif kind == "yolo":
            annotations = read_yolo(path, split, self._check)
        else:
            folder = resolve_path(self.images) if self.images is not None else path.parent
            annotations = read_coco(path, folder, self._check, optional=split is None)
        return Examples([image.id for image in annotations], [image.image for image in annotations],
                        [image.boxes for image in annotations])

    def _kind(self, path: Path) -> str:
        return self.format or ("voc" if path.is_dir() else
                               "yolo" if path.suffix.lower() in (".yaml", ".yml") else "coco")

    def read_new(self, source: str, split: SplitName = "test") -> Examples:
        """Annotated images, in whatever list they are; or a file, or the files of a folder."""
        path = resolve_path(source)
        if path.suffix.lower() in (".json", ".yaml", ".yml") or (path / "Annotations").is_dir():
            examples = self._annotated(None, source)
            examples.columns = {"path": list(map(str, examples.inputs))}
            if not _has_objects(examples):
                examples.labels = [None] * len(examples)
            return examples
        examples = read_new(source, "image", "image", "label", split=split)
        examples.labels = [None] * len(examples)  # folders are not boxes
        return examples

    def stand_ins(self, examples: Examples) -> list[Any]:
        return [[] for _ in examples.ids]

    def _renamed(self, examples: Examples, source: str) -> Examples:
        """Class names of each object, where `classes` are given."""
        if self.classes is not None:
            examples.labels = [[self._named(box, f"{source}, {place}") for box in boxes]
                               for place, boxes
                               in zip(examples.ids, examples.labels, strict=True)]
        return examples

    def _named(self, box: Box, place: str) -> Box:
        assert self.classes is not None
        return dataclasses.replace(box, label=renamed(box.label, self.classes, place, "class"))

    def prepare(self, split: SplitName, examples: Examples) -> list[bytes]:
        return self._images.add(split, examples)

    def connect(self, backbone: Backbone, seed: int) -> None:
        """Take the backbone's size and normalisation.

        Raises:
            Incompatible: the backbone reads no images, or none of `image_size`.
        """
        preprocessing = image_reader(backbone, self, self.image_size,
                                     "choose a detector as the backbone")
        self.load()
        self._seed = seed
        self._preprocessing = preprocessing
        self._images.keep(self._fit, self.still(self.augment is not None))

    @property
    def _fit(self) -> Stretch:
        wanted = self._connected
        return Stretch(self.image_size or wanted.size,
                       v2.InterpolationMode(wanted.interpolation))

    def dataset(self, split: SplitName, training: bool) -> SplitDataset:
        augment = self.augment if training else None
        kept = None if self.plain or augment is not None else self._images.kept(split)
        return BoxDataset(self._images.of(split), self._images.sizes(split),
                          self.splits[split].targets, self.seed, augment, self._fit,
                          self._connected.mean, kept)

    def kept_images(self) -> list[ImageCache]:
        return [] if self.plain else self._images.all_kept(self.splits)

    def collate(self, training: bool) -> Callable[[Sequence[ExampleRow]], dict[str, Any]]:
        wanted = self._connected
        stack = StackImages(wanted.input_name, Normalise(wanted.mean, wanted.std))
        return Collate(stack, self.task.stack)

    @property
    def image_fit(self) -> ImageFit:
        return ImageFit(self._fit.size, crops=False)

    def export_code(self, preprocessing: Preprocessing, model: TaskModel) -> PlainExamples | None:
        if (self.task.output_type != "boxes" or self.task.export_code() is None
                or not isinstance(preprocessing, ImagePreprocessing)):
            return None
        height, width = self.image_fit.size
        code = _PREDICT.format(name=preprocessing.input_name, height=height, width=width)
        return PlainExamples(with_images(code, preprocessing, self.image_fit, model), "images",
                             "image")

    @property
    def _connected(self) -> ImagePreprocessing:
        if self._preprocessing is None:
            raise RuntimeError("the loaders need `connect` with a backbone first")
        return self._preprocessing


def _has_objects(examples: Examples) -> bool:
    return any(not box.ignored for boxes in examples.labels for box in boxes)
