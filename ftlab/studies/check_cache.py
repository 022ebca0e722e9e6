"""Checked studies and entries of their files, kept so that asking again imports no classes.

Lightning, PyTorch and all that they pull in take seconds and 700 MiB; which cells a study file has
is a few lines of text that only code can change, and whether they may run only code and files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ftlab.backbones.cache_folder import damaged, folder, may_add
from ftlab.files import write
from ftlab.studies.files_read import files_read, state_of

KIND = "checks"
MOST = 2000  # files kept, of some kilobytes each

_PACKAGE = Path(__file__).resolve().parents[1]


def remembered(question: object, answer: Callable[[], Any], reads: bool = False) -> Any:
    """The answer as JSON; from `$FTLAB_CACHE` where this code has given it before.

    An error is not remembered, so that what is refused is refused by the classes themselves.

    Args:
        question: all that the answer depends on besides code and files; plain data.
        answer: computes it, as plain data.
        reads: whether it reads files. Those that it opens or lists are watched: a change of one
            has it computed again. An answer from the network is never remembered.
    """
    asked = hashlib.sha256(f"{_code(tuple(sys.path))} {question!r}".encode()).hexdigest()
    path = folder(KIND) / f"{asked}.json"
    with contextlib.suppress(OSError):  # not there
        digest, _, text = path.read_bytes().partition(b"\n")
        if _sha256(text) != digest:
            damaged(str(path))
        elif _unchanged((kept := json.loads(text))["files"]):
            return kept["answer"]
    with files_read() if reads else contextlib.nullcontext() as watch:
        made = json.dumps(answer())
    states = {} if watch is None else watch.states()
    if may_add() and states is not None:
        with contextlib.suppress(OSError):  # a full disk costs the next one time, and nothing else
            _keep(path, f'{{"answer": {made}, "files": {json.dumps(states)}}}')
    return json.loads(made)


def _unchanged(files: Mapping[str, Sequence[int] | None]) -> bool:
    return all(state_of(path) == (None if state is None else tuple(state))
               for path, state in files.items())


def _sha256(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest().encode()


@cache  # classes do not change in a process that has imported them
def _code(places: tuple[str, ...]) -> str:
    """Digest of ftlab's own files and of the version of every package in `sys.path`."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(f"{path.relative_to(_PACKAGE)}\0".encode() + path.read_bytes() + b"\0")
    # the folders that pip makes are named after package and version: reading each takes seconds;
    # within them are copies that setuptools and Ray put into the path as soon as they are imported
    versions = {name for place in places if not _within_packages(place) and os.path.isdir(place)
                for name in os.listdir(place)
                if name.endswith((".dist-info", ".egg-info"))}
    digest.update(" ".join([platform.python_version(), *sorted(versions)]).encode())
    return digest.hexdigest()


def _within_packages(place: str) -> bool:
    return any(parent.name in ("site-packages", "dist-packages") for parent in Path(place).parents)


def _keep(path: Path, text: str) -> None:
    """Write the file, its sha256 in front; the oldest go."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, _sha256(text.encode()) + b"\n" + text.encode())
    kept = sorted((file.stat().st_mtime, file) for file in path.parent.glob("*.json"))
    for _, old in kept[:-MOST]:
        old.unlink(missing_ok=True)
