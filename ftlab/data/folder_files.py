"""Files of a data folder: names that are UTF-8, and links that stay inside."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from huggingface_hub import constants

from ftlab.data.utf8 import check_names
from ftlab.errors import InputError

PLACES = "FTLAB_LINKS"
"""The environment variable with the folders, besides a data folder itself and the hub's cache, that
its links may lead to: separated as in PATH."""


def check_files(paths: Iterable[Path], source: Path) -> list[Path]:
    """The files of a data folder, which are its own.

    A link in a folder from elsewhere can make a private text an example, whose words then stand in
    predictions and exports.

    Args:
        paths: of files.
        source: the folder, or the one file, which may be a link: its user has named it.

    Raises:
        InputError: a name that is not UTF-8, or a link that leads out of the folder; the first.
    """
    paths = list(paths)
    root = source if source.is_dir() else source.parent
    check_names(paths, root)
    if source != root:
        return paths
    places = [root.resolve(), Path(constants.HF_HUB_CACHE).resolve(),
              *(Path(place).resolve() for place in os.environ.get(PLACES, "").split(os.pathsep)
                if place)]
    folders: dict[Path, bool] = {}
    for path in paths:
        if path.parent not in folders:
            folders[path.parent] = _within(path.parent, places)
        if not folders[path.parent] or (path.is_symlink() and not _within(path, places)):
            raise InputError(f"{path} leads out of {root}, to {path.resolve()}",
                             f"copy the file, or allow the place: export {PLACES}=FOLDER")
    return paths


def _within(path: Path, places: Iterable[Path]) -> bool:
    target = path.resolve()
    return any(target.is_relative_to(place) for place in places)
