"""Images and masks in folders, paired by their names, each mask checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ftlab.data.examples import Examples, SplitName, kind_of
from ftlab.data.faults import gathered
from ftlab.data.folder_files import check_files
from ftlab.data.image_decode import decode_places, image_bytes, lies_sideways, picture_size
from ftlab.errors import InputError
from ftlab.tasks.class_mask import IGNORED_PIXEL, ClassMask

FOLDERS: dict[SplitName, tuple[str, ...]] = {
    "train": ("train", "training"), "validation": ("val", "validation", "valid"),
    "test": ("test", "testing")}
"""Splits by the names of the folders of images that are theirs."""
_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


@dataclass(frozen=True)
class MaskCheck:
    """Reads masks and holds them to their image and the classes.

    Attributes:
        classes: name of each value; None takes every value for a class, called by its number.
        ignore: the value of pixels that do not count; None where all do.
    """

    classes: Mapping[int, str] | None
    ignore: int | None

    def __call__(self, file: Path, image: Path) -> ClassMask:
        """The mask of an image.

        Raises:
            InputError: with the file and the mend.
        """
        values = decode_places(image_bytes(file), str(file))
        self._check_size(file, values.shape[::-1], image)
        found = [int(value) for value in np.unique(values) if value != self.ignore]
        classes = {value: str(value) for value in found} if self.classes is None else self.classes
        if outside := [value for value in found if value not in classes]:
            raise InputError(f"{file}: the value {outside[0]} is none of the {len(classes)} classes "
                             f"({_shown(classes)})", "mend the mask, name the value in classes, or give "
                             f"the value that does not count: ignore: {outside[0]}")
        names = list(dict.fromkeys(classes.values()))
        table = np.full(256, IGNORED_PIXEL, np.uint8)
        for value, name in classes.items():
            table[value] = names.index(name)
        return ClassMask.of(names, table[values])

    def _check_size(self, file: Path, size: tuple[int, ...], image: Path) -> None:
        wanted = picture_size(image)
        if size == wanted:
            return
        differ = f"{file} has {size[0]}x{size[1]} pixels, and its image {image} {wanted[0]}x{wanted[1]}"
        if size == wanted[::-1] and lies_sideways(image):
            raise InputError(f"{differ}, turned upright as its EXIF data says",
                             "take the orientation out of the image's EXIF data, or turn the mask")
        raise InputError(differ, "save the mask in its image's size, resized with nearest neighbours")


def split_folders(source: Path, images: str) -> dict[SplitName, str]:
    """The names of folders that are a split's, in the folder of images; none where there are none."""
    found = {split: next((name for name in names if (source / images / name).is_dir()), None)
             for split, names in FOLDERS.items()}
    return {split: name for split, name in found.items() if name is not None}


def read_masks(source: Path, images: str, masks: str, split: SplitName | None,
               check: MaskCheck) -> Examples:
    """The images of a folder and their masks.

    Args:
        source: the folder that has both.
        images: the folder of images in it, or elsewhere.
        masks: likewise; a mask has its image's name, and `.png`.
        split: None for all, whatever folders of splits there are.
        check: reads the masks.

    Raises:
        InputError: with the files.
    """
    for name, argument in ((images, "images"), (masks, "masks")):
        if not (source / name).is_dir():
            raise InputError(f"{source} has no folder {name!r} of {argument}",
                             f"add it, or name another with {argument}:")
    top, beside = source / images, source / masks
    folders = {} if split is None else split_folders(source, images)
    if folders and split is not None:
        if kind_of(split) not in folders:
            raise InputError(f"{top} has folders of splits, but none for {kind_of(split)}",
                             f"add {top / FOLDERS[kind_of(split)][0]}, or name another source")
        top, beside = (folder / folders[kind_of(split)] for folder in (top, beside))
    files = [path for path in sorted(top.rglob("*")) if path.suffix.lower() in _PICTURES
             and path.is_file() and not path.name.startswith(".")]
    if not files:
        raise InputError(f"{top} has no image", f"add images ({', '.join(_PICTURES[:3])}, ...)")
    check_files(files, top)

    def labelled(file: Path) -> ClassMask:
        mask = beside / file.relative_to(top).with_suffix(".png")
        if not mask.is_file():
            raise InputError(f"{file} has no mask {mask}", "add the mask, or remove the image")
        check_files([mask], beside)
        return check(mask, file)

    labels = gathered("masks", labelled, files)
    return Examples([file.relative_to(top).as_posix() for file in files], list(files), list(labels))


def _shown(classes: Mapping[int, str]) -> str:
    shown = [f"{value} {name}" for value, name in classes.items()]
    return ", ".join(shown[:6] + ["..."] * (len(shown) > 6))
