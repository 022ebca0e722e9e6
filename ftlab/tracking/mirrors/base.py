"""The contract of mirrors: other trackers that are shown a command's runs beside MLflow."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from ftlab.errors import InputError

Status = Literal["FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True)
class MirroredRun:
    """A run's identity.

    Attributes:
        study: its study.
        cell: title of its cell.
        config: short hash of the cell's config.
        name: its own name: `seed 0`, `trial 3 of quick`.
        token: the same when it goes on after an interruption, another's never.
        params: settings, flat and without secrets.
    """

    study: str
    cell: str
    config: str
    name: str
    token: str
    params: Mapping[str, str]

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.cell}, {self.name}"


class Mirror(ABC):
    """One run in another tracker.

    What any method raises ends this mirror of this run, and nothing else. A run that goes on after
    an interruption begins anew, and is told all that it has logged so far: `begin` removes what is
    there of the same token, so that nothing stands there twice.

    Args:
        folder: where it may write, see `own_folder`.
    """

    library: ClassVar[str]
    """The package that it needs, by which a study names it too."""
    install: ClassVar[str]
    """The command that installs the package."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def own_folder(self) -> Path:
        """The folder, made, which git leaves out."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / ".gitignore").write_text("*\n", encoding="utf-8")
        return self.folder

    @abstractmethod
    def begin(self, run: MirroredRun) -> None:
        """Make the run."""

    @abstractmethod
    def metrics(self, values: Mapping[str, float], step: int, milliseconds: int) -> None:
        """Add points to curves; a metric's steps grow. The time is since 1970."""

    @abstractmethod
    def end(self, status: Status, final: Mapping[str, float]) -> None:
        """Write what was measured once, and that the run ended."""


def all_mirrors() -> dict[str, type[Mirror]]:
    """Every mirror by the name that a study gives it, found by walking the room."""
    room = importlib.import_module(__name__.rpartition(".")[0])
    modules = [importlib.import_module(f"{room.__name__}.{info.name}")
               for info in pkgutil.iter_modules(room.__path__)]
    found = [cls for module in modules for cls in vars(module).values()
             if isinstance(cls, type) and issubclass(cls, Mirror) and cls is not Mirror
             and cls.__module__ == module.__name__]
    return {cls.library: cls for cls in sorted(found, key=lambda cls: cls.library)}


def installed(names: Sequence[str]) -> list[type[Mirror]]:
    """Mirrors by their names.

    Raises:
        InputError: the package of one is not installed; says how to install it.
    """
    found = [all_mirrors()[name] for name in names]
    for mirror in found:
        if importlib.util.find_spec(mirror.library) is None:
            raise InputError(f"mirror: {mirror.library} is not installed", mirror.install)
    return found
