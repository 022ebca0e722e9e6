"""Packages that the user allows: looked for where Python looks, and in the current folder.

`--allow mine` finds `mine.py` or `mine/` in the current folder, in the command and in every process that
a run starts; no other file of that folder can be imported, whatever its name.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from ftlab.errors import InputError


class _Finder:
    """The last of Python's finders: finds the allowed packages that no other one has found."""

    def __init__(self) -> None:
        self.folders: dict[str, str] = {}

    def find_spec(self, name: str, path: Sequence[str] | None = None,
                  target: ModuleType | None = None) -> ModuleSpec | None:
        """Find an allowed package; its modules are found in the package itself."""
        folder = self.folders.get(name)
        return None if folder is None else PathFinder.find_spec(name, [folder])


_FINDER = _Finder()


def admit(packages: Iterable[str]) -> None:
    """Let these packages be imported from the current folder too.

    Raises:
        InputError: no name of a package, or one that is installed and another one here.
    """
    for package in packages:
        file = package.endswith(".py")
        if file or not all(part.isidentifier() for part in package.split(".")):
            names = [Path(part.strip()).stem or "MODULE" for part in package.split(",")]
            raise InputError(f"--allow {package}: not the name of a module or package",
                             f"{' '.join(f'--allow {name}' for name in names)}, in the folder that "
                             f"holds {'it' if len(names) == 1 else 'them'}")
        _admit(package.partition(".")[0])


def _admit(package: str) -> None:
    here = PathFinder.find_spec(package, [os.getcwd()])
    if here is None or package in _FINDER.folders:
        return
    loaded = sys.modules.get(package)
    there = importlib.util.find_spec(package) if loaded is None else loaded.__spec__
    # a folder without __init__.py has no origin: one that happens to be called so, as a checkout is
    if there is not None and here.origin is not None and _place(there) != _place(here):
        raise InputError(f"--allow {package}: there is one here, and another in {_place(there)}",
                         "rename yours")
    if there is None and loaded is None:
        _FINDER.folders[package] = os.getcwd()
        if _FINDER not in sys.meta_path:
            sys.meta_path.append(_FINDER)


def _place(spec: ModuleSpec) -> str:
    where = spec.origin or next(iter(spec.submodule_search_locations or ()), spec.name)
    return os.path.realpath(where) if os.path.exists(where) else where
