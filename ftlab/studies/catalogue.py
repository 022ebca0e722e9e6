"""The lines of `ftlab list`: the classes of a room and their constructors' arguments."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ftlab.errors import InputError
from ftlab.studies.check_cache import remembered
from ftlab.studies.discover import FAMILIES, family, members
from ftlab.wording import did_you_mean


def catalogue(room: str | None, allow: Sequence[str] = ()) -> list[str]:
    """Lines: each class with its first docstring line, and with `room` its arguments too.

    They are remembered, since importing all classes takes seconds; those of allowed packages,
    which may change at any time, are not.

    Raises:
        InputError: there is no such room.
    """
    if room is not None and room not in FAMILIES:
        raise InputError(f"there is no room {room!r}", did_you_mean(room, list(FAMILIES)))
    if allow:
        return list(_lines(room, allow))
    lines: list[str] = remembered(("catalogue", room), lambda: list(_lines(room, ())))
    return lines


def _lines(room: str | None, allow: Sequence[str]) -> Iterator[str]:
    from ftlab.studies.components import component_of, schema  # which imports the classes

    for name in FAMILIES if room is None else [room]:
        yield f"{name}:"
        for cls in members(family(name), allow).values():
            yield f"  {cls.__name__}: {(inspect.getdoc(cls) or '').splitlines()[0]}"
            if room is not None:
                yield from _arguments(cls, schema(cls), component_of)


def _arguments(cls: type, parameters: Mapping[str, inspect.Parameter],
               component_of: Callable[[inspect.Parameter], type | None]) -> Iterator[str]:
    texts = _documented(cls)
    for name, parameter in parameters.items():
        required = parameter.default is inspect.Parameter.empty
        value = "required" if required else f"= {_readable(parameter.default)}"
        kind = component_of(parameter)
        choices = f" [{' | '.join(members(kind))}]" if kind and name != "technique" else ""
        yield f"      {name} {value}{choices}: {texts.get(name, '')}"


def _readable(default: Any) -> str:
    if type(default).__module__.startswith("ftlab.") and type(default).__repr__ is object.__repr__:
        return f"{type(default).__name__}()"
    return repr(default)


def _documented(cls: type) -> dict[str, str]:
    """Arguments and what the class's docstring says of them."""
    _, _, section = (inspect.getdoc(cls) or "").partition("Args:\n")
    texts: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if start := re.match(r" {4}(\w+(?:, \w+)*): (.*)", line):
            name = start[1]
            texts |= dict.fromkeys(name.split(", "), start[2])
        elif line.startswith("     ") and name:
            texts |= {part: f"{texts[part]} {line.strip()}" for part in name.split(", ")}
        elif line.strip():
            break
    return texts
