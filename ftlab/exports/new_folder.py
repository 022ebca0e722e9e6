"""A folder that appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ftlab.errors import InputError


def free(folder: Path) -> Path:
    """The folder, if nothing is in it.

    Raises:
        InputError: something is.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what = "is not empty" if folder.is_dir() else "is a file"
        raise InputError(f"{folder} {what}", "give --out another folder, or remove it")
    return folder


@contextmanager
def growing_folder(folder: Path | None) -> Iterator[Path]:
    """A folder to write to, which gets its name at the end; nothing stays of one that fails."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="ftlab-") as temporary:
            inner = Path(temporary) / "model"
            inner.mkdir()
            yield inner
        return
    growing = folder.absolute().with_name(f".{folder.name}.{os.getpid()}.tmp")
    above = [parent for parent in growing.parents if not parent.exists()]
    try:
        try:
            growing.mkdir(parents=True)
        except OSError as error:
            raise InputError(f"{folder}: {error.strerror or error}",
                             "give --out a folder that can be written") from error
        yield growing
        os.replace(growing, folder)
    except BaseException:
        shutil.rmtree(growing, ignore_errors=True)
        for parent in above:
            with suppress(OSError):  # somebody else's files are in it by now
                parent.rmdir()
        raise
