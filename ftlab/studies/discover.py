"""Which classes a study may name: those that lie in ftlab's rooms, and in allowed packages."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from ftlab.errors import InputError

FAMILIES = {
    "techniques": "ftlab.techniques.base.Technique",
    "tasks": "ftlab.tasks.base.Task",
    "data": "ftlab.data.base.DataModule",
    "backbones": "ftlab.backbones.base.Backbone",
}
"""What `ftlab list` shows: room, and the class its members are subclasses of."""


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
    found: dict[str, type] = {}
    for package in (base.__module__.rpartition(".")[0], *allow):
        for module in _modules(package):
            for name, value in vars(module).items():
                own = inspect.isclass(value) and value.__module__ == module.__name__
                if not own or not issubclass(value, base) or inspect.isabstract(value):
                    continue
                if name in found:
                    raise InputError(
                        f"{value.__module__}.{name} has the name of {found[name].__module__}.{name}",
                        "rename one of the two classes",
                    )
                found[name] = value
    return dict(sorted(found.items()))


def _modules(package: str) -> Iterator[ModuleType]:
    try:
        root = importlib.import_module(package)
    except ImportError as error:
        raise InputError(
            f"the package {package!r} cannot be imported ({error})", "install it, or mend --allow"
        ) from error
    yield root
    for info in pkgutil.iter_modules(getattr(root, "__path__", ()), package + "."):
        yield importlib.import_module(info.name)


def find(base: type, name: str, allow: Sequence[str], place: object) -> type:
    """The member called `name`: its class name, or its full path in ftlab or an allowed package.

    Raises:
        InputError: there is none, or it lies in a package that is not allowed.
    """
    known = members(base, allow)
    short = name.rpartition(".")[2]
    if short in known and name in (short, f"{known[short].__module__}.{short}"):
        return known[short]
    if "." in name and not any(name.startswith(p + ".") for p in ("ftlab", *allow)):
        package = name.partition(".")[0]
        raise InputError(
            f"{place}: {name} lies outside ftlab, and only classes of ftlab may be named",
            f"if you trust it, run with --allow {package}",
        )
    raise InputError(
        f"{place}: there is no {base.__name__} called {name!r}", did_you_mean(short, list(known))
    )


def did_you_mean(word: Any, choices: Sequence[str]) -> str:
    """One line: the closest choice if one is close, then all."""
    folded = {choice.lower(): choice for choice in choices}
    close = [
        folded[found]
        for found in difflib.get_close_matches(str(word).lower(), folded, n=1, cutoff=0.5)
    ]
    listed = "one of: " + ", ".join(choices) if choices else "it takes none"
    return f"did you mean {close[0]!r}? ({listed})" if close else listed
