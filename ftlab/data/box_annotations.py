"""Annotated images from Pascal VOC's folders and COCO's JSON, each object checked."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ftlab.data.examples import SplitName, kind_of
from ftlab.data.faults import gathered
from ftlab.data.folder_files import check_files
from ftlab.data.image_decode import lies_sideways, picture_size
from ftlab.data.named_files import named_file
from ftlab.data.utf8 import read_whole
from ftlab.errors import InputError
from ftlab.interchange import parse_json, read_bytes
from ftlab.tasks.boxes import Box
from ftlab.tasks.class_names import class_name, number_name
from ftlab.tasks.spelling import key

BadBoxes = Literal["refuse", "clip", "drop"]
LISTS: dict[SplitName, str] = {"train": "train", "validation": "val", "test": "test"}
"""Splits by the names of the lists in a VOC folder's ImageSets/Main."""
_FLAG = re.compile(r"\s+(-1|0|1)$")  # of the lists a class: whether the image has an object of it
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".JPG", ".JPEG", ".PNG")
_EDGES = ("width", "height")
_MEND_BOX = "mend the box, or set bad_boxes to drop or clip"


@dataclass(frozen=True)
class AnnotatedImage:
    """An image with its objects.

    Attributes:
        id: stable name.
        image: its file.
        boxes: its objects, checked.
    """

    id: str
    image: Path
    boxes: list[Box]


@dataclass
class BoxCheck:
    """Holds boxes to their image.

    Attributes:
        policy: `refuse` raises; `clip` cuts boxes to the image and drops those of no area;
            `drop` leaves out every box that is outside the image, in part too, or of no area.
        changed: counts what was done.
        polygons: of which the boxes were taken.
    """

    policy: BadBoxes
    changed: Counter[str]
    polygons: int = 0

    def __call__(self, box: Box, size: tuple[int, int], place: str) -> Box | None:
        """The box, or None where it is dropped.

        Args:
            box: as annotated.
            size: width and height of the image.
            place: for messages.
        """
        x1, y1, x2, y2 = box.corners
        empty = not (x2 > x1 and y2 > y1)  # also where one is not a number
        outside = not (x1 >= 0 and y1 >= 0 and x2 <= size[0] and y2 <= size[1])
        if not empty and not outside:
            return box
        shown = ", ".join(f"{value:g}" for value in box.corners)
        if self.policy == "refuse":
            what = "has no area" if empty else f"lies outside the image of {size[0]}x{size[1]}"
            raise InputError(f"{place}: the box ({shown}) of {box.label!r} {what}", _MEND_BOX)
        cut = (max(x1, 0.0), max(y1, 0.0), min(x2, float(size[0])), min(y2, float(size[1])))
        if self.policy == "drop" or empty or cut[2] <= cut[0] or cut[3] <= cut[1]:
            self.changed["dropped"] += 1
            return None
        self.changed["cut to their image"] += 1
        return Box(box.label, cut, box.ignored)


def voc_list(folder: Path, split: SplitName) -> Path | None:
    """The list of a split's images; None where the folder has no lists at all.

    Raises:
        InputError: it has lists, but not this one.
    """
    lists = folder / "ImageSets" / "Main"
    path = lists / f"{LISTS[kind_of(split)]}.txt"
    if path.is_file():
        return path
    if any((lists / f"{name}.txt").is_file() for name in LISTS.values()):
        raise InputError(f"{folder} has lists of images, but no {path.relative_to(folder)}",
                         "add the list, or name another source")
    return None


def read_voc(folder: Path, split: SplitName | None, check: BoxCheck) -> list[AnnotatedImage]:
    """The images of a split of a Pascal VOC folder (Annotations, JPEGImages, ImageSets/Main).

    Args:
        folder: of the data set.
        split: None for all images, whatever the lists say.
        check: what to do with bad boxes.

    Raises:
        InputError: with file and object.
    """
    if not (folder / "Annotations").is_dir():
        raise InputError(f"{folder} has no folder Annotations",
                         "name a folder in Pascal VOC's layout, or a COCO .json file")
    names = None if split is None else voc_list(folder, split)
    if names is None:
        files = sorted((folder / "Annotations").glob("*.xml"))
        ids = [path.stem for path in check_files(files, folder)]
    else:
        ids = _listed(names, folder / "Annotations")
    if not ids:
        raise InputError(f"{names or folder / 'Annotations'} names no image", "add annotations")

    def image(name: str) -> AnnotatedImage:
        file = folder / "Annotations" / f"{name}.xml"
        if not file.is_file():
            raise InputError(f"{names}: {name} has no annotation {file}", "annotate or unlist it")
        return _voc_image(folder, name, file, check)

    annotations = gathered("images", image, ids)
    check_files([annotated.image for annotated in annotations], folder)
    return annotations


def _listed(file: Path, annotations: Path) -> list[str]:
    """The names in a list, which may have spaces in them, and a class's flag behind them."""
    lines = read_whole(file).splitlines()
    names = [line.strip() for line in lines if line.strip()]
    return [name if (annotations / f"{name}.xml").is_file() else _FLAG.sub("", name)
            for name in names]


def _voc_image(folder: Path, name: str, file: Path, check: BoxCheck) -> AnnotatedImage:
    try:
        root = ET.fromstring(read_bytes(file))
    except (ET.ParseError, ValueError, LookupError) as error:  # also of encodings of its own
        raise InputError(f"{file} is not well-formed XML: {error}", "mend or remove it") from None
    image = _voc_picture(folder, name, root.findtext("filename") or "", file)
    size = _annotated_size(image, [root.findtext(f"size/{edge}") for edge in _EDGES], str(file))

    def checked(number: int, thing: ET.Element) -> Box | None:
        place = f"{file}, object {number}"
        label = (thing.findtext("name") or "").strip()
        values = [thing.findtext(f"bndbox/{edge}") for edge in ("xmin", "ymin", "xmax", "ymax")]
        box = _box(label, values, (thing.findtext("difficult") or "0").strip() == "1", place)
        return check(box, size, place)

    things = list(root.iter("object"))
    boxes = gathered("boxes", checked, range(1, len(things) + 1), things)
    return AnnotatedImage(name, image, [box for box in boxes if box is not None])


def _annotated_size(image: Path, written: Sequence[Any], place: str) -> tuple[int, int]:
    """Width and height of an image, held to those of the one that was annotated.

    Raises:
        InputError: they differ, so that the boxes are of another image, or of this one as it lies.
    """
    size = picture_size(image)
    annotated = tuple(_edge(value, edge, place)
                      for value, edge in zip(written, _EDGES, strict=True))
    if all(annotated) and annotated != size:
        differ = (f"{place}: it annotates an image of {annotated[0]}x{annotated[1]}, and "
                  f"{image} has "
                  f"{size[0]}x{size[1]}")
        if annotated == size[::-1] and lies_sideways(image):
            raise InputError(f"{differ}, turned upright as its EXIF data says",
                             "where the boxes are of the image as it lies, take the orientation "
                             "out of its EXIF data; else mend the annotation's size")
        raise InputError(differ, "mend the annotation's size, or the image")
    return size


def _edge(value: Any, name: str, place: str) -> int:
    """A written width or height; 0 where there is none."""
    try:
        return int(float(value or 0))
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{place}: its {name} is {value!r}, which is no number",
                         f"mend or remove the {name}") from None


def _voc_picture(folder: Path, name: str, written: str, file: Path) -> Path:
    images = folder / "JPEGImages"
    candidates = [images / f"{name}{suffix}" for suffix in _SUFFIXES]
    candidates += [images / Path(written.replace("\\", "/")).name] if written else []
    picture = next((path for path in candidates if path.is_file()), None)
    if picture is None:
        raise InputError(f"{file}: its image is missing from {images}",
                         "add the image or remove the annotation")
    return picture


def read_coco(file: Path, folder: Path, check: BoxCheck,
              optional: bool = False) -> list[AnnotatedImage]:
    """The images of a COCO file of instances.

    Args:
        file: the JSON.
        folder: of the images.
        check: what to do with bad boxes.
        optional: whether the annotations may be lacking.

    Raises:
        InputError: with file and entry.
    """
    content = parse_json(read_whole(file), file, "mend it")
    if optional and isinstance(content, dict):
        content = {"annotations": [], "categories": [], **content}
    images = _by_id(content, "images", ("file_name",), file)
    names = {number: entry["name"] for number, entry in
             _by_id(content, "categories", ("name",), file).items()}
    objects: dict[Any, list[tuple[str, Mapping[str, Any]]]] = {number: [] for number in images}
    for number, entry in _by_id(content, "annotations", ("image_id", "category_id", "bbox"),
                             file).items():
        place = f"{file}, annotation {number}"
        image_id, category = _id(entry["image_id"]), _id(entry["category_id"])
        if image_id not in images:
            raise InputError(f"{place}: there is no image {entry['image_id']}",
                             "add the image to the file or remove the annotation")
        if category not in names:
            raise InputError(f"{place}: there is no category {entry['category_id']}",
                             f"categories are {', '.join(map(str, names))}")
        objects[image_id].append((place, entry))

    def image(number: str) -> AnnotatedImage:
        try:
            path = named_file(str(images[number]["file_name"]), folder,
                              f"{file}, image {number}", "file")
        except InputError as error:
            raise InputError(error.what, "name the images' folder with images:") from None
        size = _annotated_size(path, [images[number].get(edge) for edge in _EDGES],
                               f"{file}, image {number}")
        boxes = gathered("boxes", lambda at: check(_coco_box(at[1], names, at[0]), size, at[0]),
                         objects[number])
        return AnnotatedImage(str(images[number]["file_name"]), path,
                         [box for box in boxes if box is not None])

    return gathered("images", image, images)


def _coco_box(entry: Mapping[str, Any], names: Mapping[Any, Any], place: str) -> Box:
    values = entry["bbox"]
    if isinstance(values, list) and len(values) == 4 and all(_is_number(v) for v in values):
        x, y, width, height = values
        values = [x, y, x + width, y + height]
    label = class_name(names[_id(entry["category_id"])], f"{place}: the category's name")
    return _box(label, values, bool(entry.get("iscrowd", 0)), place)


def _by_id(content: Any, part: str, fields: Sequence[str], file: Path) -> dict[Any, Any]:
    """The entries of a part of a COCO file."""
    entries = content.get(part) if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise InputError(f"{file} has no list {part!r}", "name a COCO file of instances")
    by_id: dict[Any, Any] = {}
    for place, entry in enumerate(entries, 1):
        lacking = [name for name in ("id", *fields)
                   if not isinstance(entry, dict) or name not in entry]
        if lacking:
            raise InputError(f"{file}, entry {place} of {part}: no {lacking[0]!r}", "add it")
        number = _id(entry["id"])
        if number in by_id:
            raise InputError(f"{file}, entry {place} of {part}: the id {entry['id']} occurs "
                             "twice", "give each its own")
        by_id[number] = entry
    return by_id


def _id(value: Any) -> str:
    """The same for 1, 1.0 and "1", as files mix them."""
    return key(number_name(value) if _is_number(value) else str(value))


def _box(label: str, values: Any, ignored: bool, place: str) -> Box:
    if not label:
        raise InputError(f"{place}: it has no class", "name the object or remove it")
    try:
        x1, y1, x2, y2 = (float(value) for value in values)
    except (TypeError, ValueError):
        raise InputError(f"{place}: its box is {values}, not four numbers", "mend it") from None
    return Box(label, (x1, y1, x2, y2), ignored)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
