"""The lines of `ftlab list`: the classes of a room and their constructors' arguments."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ftlab.activity import doing
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
    doing("reading the classes")
    for name in FAMILIES if room is None else [room]:
        classes = members(family(name), allow).values()
        yield f"{name}:"
        if room is None:
            yield from map(_title, classes)
        else:
            yield from _detailed(classes, allow)


def _title(cls: type) -> str:
    return f"  {cls.__name__}: {(inspect.getdoc(cls) or '').splitlines()[0]}"


def _detailed(classes: Iterable[type], allow: Sequence[str]) -> Iterator[str]:
    """Classes with their arguments, then what these arguments take, but for classes of rooms."""
    from ftlab.studies.components import schema  # which imports the classes

    rooms = tuple(family(name) for name in FAMILIES)
    kinds: dict[type, dict[str, None]] = {}
    for cls in classes:
        yield _title(cls)
        texts = _documented(cls)
        for name, parameter in schema(cls).items():
            required = parameter.default is inspect.Parameter.empty
            value = "required" if required else f"= {_readable(parameter.default)}"
            kind = _kind(parameter)
            if kind and not issubclass(kind, rooms):
                kinds.setdefault(kind, {})[name] = None
            shown = kind and name != "technique" and not dataclasses.is_dataclass(kind)
            choices = f" [{' | '.join(_members(kind, allow))}]" if kind and shown else ""
            yield f"      {name} {value}{choices}: {texts.get(name, '')}"
    for kind, arguments in kinds.items():
        yield f"{', '.join(arguments)}:"
        yield from _detailed(_members(kind, allow).values(), allow)


def _kind(parameter: inspect.Parameter) -> type | None:
    """The class of ftlab that a parameter takes: the base of a family, or one of plain values."""
    from ftlab.studies.components import component_of

    options = typing.get_args(parameter.annotation) or (parameter.annotation,)
    plain = (option for option in options if dataclasses.is_dataclass(option))
    return component_of(parameter) or next((p for p in plain if inspect.isclass(p)), None)


def _members(kind: type, allow: Sequence[str]) -> dict[str, type]:
    return {kind.__name__: kind} if dataclasses.is_dataclass(kind) else members(kind, allow)


def _readable(default: Any) -> str:
    ours = type(default).__module__.startswith("ftlab.")
    if ours and dataclasses.is_dataclass(default):  # a section of its own shows the usual values
        other = (f"{field.name}={value!r}" for field in dataclasses.fields(default)
                 if (value := getattr(default, field.name)) != field.default)
        return f"{type(default).__name__}({', '.join(other)})"
    if ours and type(default).__repr__ is object.__repr__:
        return f"{type(default).__name__}()"
    return repr(default)


def _documented(cls: type) -> dict[str, str]:
    """Arguments, and their texts in the docstrings of the class and its parents."""
    texts: dict[str, str] = {}
    for parent in reversed(cls.__mro__):
        texts |= _section(inspect.cleandoc(vars(parent).get("__doc__") or ""))
    return texts


def _section(docstring: str) -> dict[str, str]:
    """The texts of a docstring's `Args`, by argument."""
    texts: dict[str, str] = {}
    name = ""
    for line in docstring.partition("Args:\n")[2].splitlines():
        if start := re.match(r" {4}(\w+(?:, \w+)*): (.*)", line):
            name = start[1]
            texts |= dict.fromkeys(name.split(", "), start[2])
        elif line.startswith("     ") and name:
            texts |= {part: f"{texts[part]} {line.strip()}" for part in name.split(", ")}
        elif line.strip():
            break
    return texts
