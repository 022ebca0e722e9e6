"""Finds the classes that a study may name: those in ftlab's rooms, and in allowed packages."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from ftlab.errors import FtlabError, InputError
from ftlab.studies.allowed_packages import admit
from ftlab.wording import did_you_mean

FAMILIES = {
    "techniques": "ftlab.techniques.base.Technique",
    "tasks": "ftlab.tasks.base.Task",
    "data": "ftlab.data.base.DataModule",
    "backbones": "ftlab.backbones.base.Backbone",
}
"""Rooms of `ftlab list`, and the base class of each one's members."""


def family(room: str) -> type:
    """The base class of a room's members."""
    module, _, name = FAMILIES[room].rpartition(".")
    base: type = getattr(importlib.import_module(module), name)
    return base


def members(base: type, allow: Sequence[str] = ()) -> dict[str, type]:
    """Concrete classes of a family by name: found by walking its room, so a file is enough.

    Args:
        base: the family's base class.
        allow: names of further packages or modules to look in.

    Raises:
        InputError: an allowed package cannot be imported, or brings a name that exists.
    """
    admit(allow)
    classes: dict[str, type] = {}
    for package in (base.__module__.rpartition(".")[0], *allow):
        for module in _modules(package):
            for name, value in vars(module).items():
                defined_here = inspect.isclass(value) and value.__module__ == module.__name__
                if not defined_here or not issubclass(value, base) or inspect.isabstract(value):
                    continue
                if name in classes:
                    raise InputError(
                        f"{value.__module__}.{name} has the name of {classes[name].__module__}.{name}",
                        "rename one of the two classes",
                    )
                classes[name] = value
    return dict(sorted(classes.items()))


def _modules(package: str) -> Iterator[ModuleType]:
    root = _imported(package)
    yield root
    for info in pkgutil.iter_modules(getattr(root, "__path__", ()), package + "."):
        yield _imported(info.name)


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except FtlabError:  # has its own words: a class that is refused where it is defined
        raise
    except Exception as error:  # a user's module raises whatever it likes
        raise InputError(
            f"the module {name!r} cannot be imported ({type(error).__name__}: {error})",
            "mend it, install it, or call ftlab in the folder that holds it",
        ) from error


def find(base: type, name: str, allow: Sequence[str], place: object) -> type:
    """The member called `name`: its class name, or its full path in ftlab or an allowed package.

    Raises:
        InputError: there is none, or it lies in a package that is not allowed.
    """
    classes = members(base, allow)
    short = name.rpartition(".")[2]
    if short in classes and name in (short, f"{classes[short].__module__}.{short}"):
        return classes[short]
    if any(name.startswith(f"{package}.") for package in allow):
        cls = _at(name)
        if inspect.isclass(cls) and issubclass(cls, base) and not inspect.isabstract(cls):
            return cls
    elif "." in name and not name.startswith("ftlab."):
        package = name.partition(".")[0]
        raise InputError(
            f"{place}: {name} lies outside ftlab, and only classes of ftlab may be named",
            f"if you trust it, run with --allow {package}",
        )
    path = f"{base.__module__}.{base.__name__}"
    room = next((f"ftlab list {room}" for room, of in FAMILIES.items() if of == path), "")
    raise InputError(
        f"{place}: there is no {base.__name__} called {name!r}",
        f"{did_you_mean(short, list(classes), room)}; a class of yours needs --allow MODULE, where it is",
    )


def _at(name: str) -> Any:
    """Find the class that a full path names, deep in a package; None where there is none."""
    module, _, last = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), last, None)
    except ImportError:
        return None
