"""Annotated images from YOLO's text labels and `data.yaml`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ftlab.backbones.source import READ
from ftlab.data.box_annotations import AnnotatedImage, BoxCheck
from ftlab.data.examples import SplitName, kind_of
from ftlab.data.faults import gathered
from ftlab.data.folder_files import check_files
from ftlab.data.image_decode import picture_size
from ftlab.data.named_files import named_file
from ftlab.data.utf8 import read_whole
from ftlab.errors import InputError
from ftlab.interchange import read_bytes
from ftlab.tasks.boxes import Box
from ftlab.tasks.class_names import class_name

LISTS: dict[SplitName, str] = {"train": "train", "validation": "val", "test": "test"}
"""Splits by their keys in a data.yaml."""
_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_LARGEST = 2**20  # bytes of a data.yaml, which may name thousands of classes
_ROUNDED = 1e-4  # of the image: labels have four to six digits, so that a box may end beyond the edge
_MEND_LINE = "write CLASS CX CY WIDTH HEIGHT, the last four as shares of the image's size"


def split_keys(file: Path) -> list[SplitName]:
    """The splits that a data.yaml has."""
    settings = _settings(file)
    return [split for split, key in LISTS.items() if settings.get(key)]


def read_yolo(file: Path, split: SplitName | None, check: BoxCheck) -> list[AnnotatedImage]:
    """The images of a split, each with the objects in its text file.

    Images lie in `path` and what the split's key names below it: folders, or lists of files. The
    labels of `images/A.jpg` are in `labels/A.txt`, a line an object: the number of its class, and
    centre, width and height as shares of the image's size. An image without such a file has no
    object. A line with the corners of a polygon is the polygon's box.

    Args:
        file: the data.yaml, with `names`, `train` and perhaps `path`, `val` and `test`.
        split: None for all images.
        check: what to do with bad boxes; it counts polygons.

    Raises:
        InputError: with file and line.
    """
    settings = _settings(file)
    names = _names(settings.get("names"), file)
    keys = [key for key in LISTS.values() if settings.get(key)] if split is None else [LISTS[kind_of(split)]]
    root = file.parent / _path(settings.get("path") or ".", file, "path")
    places = [(key, entry) for key in keys for entry in _entries(settings, key, file)]
    found = [pair for key, entry in places for pair in _pictures(root, entry, file, key)]
    if not found:
        raise InputError(f"{file}: {', '.join(keys)} has no image", f"name folders with images "
                         f"({', '.join(_PICTURES[:3])}, ...)")
    files = list(dict.fromkeys(path for path, _ in found))
    tops = dict(found)
    ids = [path.relative_to(tops[path]).as_posix() for path in files]
    if len({*ids}) < len(ids):  # of several folders
        ids = [path.as_posix() for path in files]

    def image(name: str, path: Path) -> AnnotatedImage:
        return AnnotatedImage(name, path, _objects(path, names, check))

    return gathered("images", image, ids, files)


def _settings(file: Path) -> Mapping[str, Any]:
    content = read_bytes(file, "name a data.yaml", most=_LARGEST)
    try:
        settings = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{file}: not YAML: {reason}", "mend it") from None
    if not isinstance(settings, dict) or "names" not in settings:
        raise InputError(f"{file} has no names of classes", "name a data.yaml of YOLO, with names and train")
    return settings


def _names(names: Any, file: Path) -> dict[int, str]:
    """Class names by their numbers, of a list or a mapping."""
    pairs = list(enumerate(names)) if isinstance(names, list) else \
        list(names.items()) if isinstance(names, dict) else []
    if not pairs:
        raise InputError(f"{file}: names has no class", "list the names of the classes")
    found: dict[int, str] = {}
    for number, name in pairs:
        if not str(number).isdecimal():
            raise InputError(f"{file}: names has {number!r} where a class has its number", "mend it")
        found[int(number)] = class_name(name, f"{file}: the name of class {number}")
    return found


def _path(value: Any, file: Path, key: str) -> Path:
    if not isinstance(value, str) or "\0" in value:
        raise InputError(f"{file}: {key} is {value!r}, not a path", "mend it")
    return Path(value.replace("\\", "/"))


def _entries(settings: Mapping[str, Any], key: str, file: Path) -> Sequence[Path]:
    value = settings.get(key)
    if not value:
        raise InputError(f"{file} has no {key}", f"add {key}, or name another source")
    return [_path(entry, file, key) for entry in (value if isinstance(value, list) else [value])]


def _pictures(root: Path, entry: Path, file: Path, key: str) -> list[tuple[Path, Path]]:
    """The images that an entry names, each with the folder that its name starts at."""
    # as tools write it whose paths start at a folder beside the data's
    inside = Path(*entry.parts[1:]) if entry.parts[:1] == ("..",) else entry
    place = next((path for path in (root / entry, root / inside) if path.exists()), None)
    sys.audit(READ, place or root / entry)
    if place is None:
        raise InputError(f"{file}: {key} names {root / entry}, which does not exist",
                         "mend it, or path, which it starts at")
    if place.is_dir():
        files = sorted(path for path in place.rglob("*") if path.suffix.lower() in _PICTURES
                       and path.is_file() and not path.name.startswith("."))
        return [(path, place) for path in check_files(files, place)]
    lines = [line.strip() for line in read_whole(place).splitlines() if line.strip()]
    files = [named_file(line, place.parent, f"{place}, line {number}", "image")
             for number, line in enumerate(lines, 1)]
    return [(path, place.parent if path.is_relative_to(place.parent) else path.parent) for path in files]


def _labels_of(image: Path) -> Path:
    """`labels/A.txt` for `images/A.jpg`: the last folder called images counts."""
    parts = list(image.parts)
    at = max((i for i, part in enumerate(parts[:-1]) if part == "images"), default=None)
    if at is not None:
        parts[at] = "labels"
    return Path(*parts).with_suffix(".txt")


def _objects(image: Path, names: Mapping[int, str], check: BoxCheck) -> list[Box]:
    size, file = picture_size(image), _labels_of(image)
    if not file.is_file():
        return []
    sys.audit(READ, file)
    lines = [(number, line.split()) for number, line in enumerate(read_whole(file).splitlines(), 1)
             if line.strip()]

    def checked(number: int, words: Sequence[str]) -> Box | None:
        place = f"{file}, line {number}"
        return check(_box(words, names, size, check, place), size, place)

    boxes = gathered("boxes", checked, *zip(*lines, strict=True)) if lines else []
    return [box for box in boxes if box is not None]


def _box(words: Sequence[str], names: Mapping[int, str], size: tuple[int, int], check: BoxCheck,
         place: str) -> Box:
    try:
        number, values = int(words[0]), [float(word) for word in words[1:]]
    except ValueError:
        raise InputError(f"{place}: {' '.join(words)[:60]!r} is not numbers", _MEND_LINE) from None
    if number not in names:
        raise InputError(f"{place}: there is no class {number}",
                         f"mend it, or add it to names, which has {len(names)} classes, from {min(names)} "
                         f"to {max(names)}")
    polygon = len(values) >= 6 and len(values) % 2 == 0
    if len(values) != 4 and not polygon:
        raise InputError(f"{place}: {len(values)} numbers behind the class, where a box has 4", _MEND_LINE)
    if any(abs(value) > 2 for value in values):
        raise InputError(f"{place}: {max(values, key=abs):g} is no share of the image's size",
                         f"{_MEND_LINE}: divide pixels by the image's width and height")
    if polygon:
        check.polygons += 1
        left, right, top, bottom = min(values[::2]), max(values[::2]), min(values[1::2]), max(values[1::2])
    else:
        x, y, wide, high = values
        left, right, top, bottom = x - wide / 2, x + wide / 2, y - high / 2, y + high / 2
    width, height = size
    return Box(names[number], (_within(left) * width, _within(top) * height,
                               _within(right) * width, _within(bottom) * height))


def _within(edge: float) -> float:
    """An edge of a box, on the image's own where digits that were cut put it beyond."""
    if -_ROUNDED <= edge < 0:
        return 0.0
    return 1.0 if 1 < edge <= 1 + _ROUNDED else edge
