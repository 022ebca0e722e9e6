"""The lines of `ftlab list`: the classes of a room and their constructors' arguments."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ftlab.activity import doing
from ftlab.errors import InputError
from ftlab.studies.check_cache import remembered
from ftlab.studies.discover import FAMILIES, family, members
from ftlab.wording import did_you_mean

TRAINER = "trainer"
"""The name in `ftlab list` of the trainer's settings, which are of no family."""


def catalogue(room: str | None, allow: Sequence[str] = ()) -> list[str]:
    """Lines: each class with its first docstring line; of a room or a class its arguments too.

    They are remembered, since importing all classes takes seconds; those of allowed packages,
    which may change at any time, are not.

    Args:
        room: of `FAMILIES`, `trainer`, or the name of a class; None for every room.
        allow: packages outside ftlab that are looked into.

    Raises:
        InputError: there is neither such a room nor such a class.
    """
    if allow:
        return list(_lines(room, allow))
    lines: list[str] = remembered(("catalogue", room), lambda: list(_lines(room, ())))
    return lines


def _lines(room: str | None, allow: Sequence[str]) -> Iterator[str]:
    doing("reading the classes")
    if room is None:
        for name in FAMILIES:
            yield f"{name}:"
            yield from map(_title, members(family(name), allow).values())
        yield f"{TRAINER}: ftlab list {TRAINER}; ftlab list NAME has the arguments of any class here"
    elif room in FAMILIES:
        yield f"{room}:"
        yield from _detailed(members(family(room), allow).values(), allow)
    elif room == TRAINER:
        from ftlab.training.trainer_settings import TrainerSettings  # whose room is of torch

        yield f"{TRAINER}:"
        yield from _detailed([TrainerSettings], allow)
    else:
        yield from _of_class(room, allow)


def _of_class(name: str, allow: Sequence[str]) -> Iterator[str]:
    """The whole docstring of one class, its arguments, and of a task its metrics.

    Raises:
        InputError: no room has such a class, nor does an argument of one take it.
    """
    from ftlab.tasks.base import Task
    from ftlab.tasks.metric import LOSS

    classes = every_class(allow)
    if name not in classes:
        raise InputError(f"there is neither a room nor a class {name!r}",
                         did_you_mean(name, [*FAMILIES, TRAINER, *classes], "ftlab list"))
    cls = classes[name]
    _, *details = inspect.cleandoc(cls.__doc__ or "").partition("\nArgs:\n")[0].rstrip().splitlines()
    yield from _detailed([cls], allow, ["", *(f"  {line}".rstrip() for line in details[1:]), ""]
                         if details else [])
    if issubclass(cls, Task):
        yield "metrics (val/NAME in select_by, test/NAME in report):"
        yield from (f"      {metric.name}: {'higher' if metric.higher_is_better else 'lower'} is better "
                    f"({metric.unit})" for metric in (LOSS, *cls().metrics()))


def every_class(allow: Sequence[str]) -> dict[str, type]:
    """The classes of all rooms by name, and those that their arguments take, to any depth."""
    from ftlab.studies.components import schema

    found: dict[str, type] = {}
    kinds: set[type] = set()
    waiting = [cls for name in FAMILIES for cls in members(family(name), allow).values()]
    while waiting:
        cls = waiting.pop()
        if found.setdefault(cls.__name__, cls) is cls:
            new = {kind for parameter in schema(cls).values() if (kind := kind_of(parameter))} - kinds
            waiting += [member for kind in new for member in classes_of(kind, allow).values()]
            kinds |= new
    return dict(sorted(found.items()))


def _title(cls: type) -> str:
    return f"  {cls.__name__}: {(inspect.getdoc(cls) or '').splitlines()[0]}"


def _detailed(classes: Iterable[type], allow: Sequence[str], more: Sequence[str] = ()) -> Iterator[str]:
    """Classes with their arguments, then what these arguments take, but for classes of rooms.

    Args:
        classes: of one room, or of what an argument takes.
        allow: packages outside ftlab that are looked into.
        more: lines that follow each title.
    """
    from ftlab.studies.components import schema  # which imports the classes

    rooms = tuple(family(name) for name in FAMILIES)
    kinds: dict[type, dict[str, None]] = {}
    for cls in classes:
        yield _title(cls)
        yield from more
        texts = documented(cls)
        for name, parameter in schema(cls).items():
            required = parameter.default is inspect.Parameter.empty
            value = "required" if required else f"= {readable(parameter.default)}"
            kind = kind_of(parameter)
            if kind and not issubclass(kind, rooms):
                kinds.setdefault(kind, {})[name] = None
            shown = kind and name != "technique" and not dataclasses.is_dataclass(kind)
            choices = f" [{' | '.join(classes_of(kind, allow))}]" if kind and shown else ""
            of = f" ({words(parameter.annotation)})" if not choices else ""
            yield f"      {name}{of} {value}{choices}: {texts.get(name, '')}"
    for kind, arguments in kinds.items():
        yield f"{', '.join(arguments)}:"
        yield from _detailed(classes_of(kind, allow).values(), allow)


def kind_of(parameter: inspect.Parameter) -> type | None:
    """The class of ftlab that a parameter takes: the base of a family, or one of plain values."""
    from ftlab.studies.components import component_of

    options = typing.get_args(parameter.annotation) or (parameter.annotation,)
    plain = (option for option in options if dataclasses.is_dataclass(option))
    return component_of(parameter) or next((p for p in plain if inspect.isclass(p)), None)


def classes_of(kind: type, allow: Sequence[str]) -> dict[str, type]:
    """The classes that may stand where a kind is taken: a family's members, or plain values' own class."""
    return {kind.__name__: kind} if dataclasses.is_dataclass(kind) else members(kind, allow)


def words(annotation: Any) -> str:
    """A type as people write it: `int or null`, `adamw | sgd`, `list of str`."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in (None, type(None)):
        return "null"
    if origin is typing.Literal:
        return " | ".join(map(str, parts))
    if origin is typing.Annotated:
        return words(parts[0])
    if origin in (types.UnionType, typing.Union):
        return " or ".join(map(words, parts))
    name = getattr(origin or annotation, "__name__", str(annotation))
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return f"mapping of {words(parts[0])} to {words(parts[1])}"
    if inspect.isclass(origin) and issubclass(origin, Sequence):
        return f"list of {words(parts[0])}"
    return "anything" if annotation is Any else name


def readable(default: Any) -> str:
    """A default value, of a group of values those that are not its usual ones."""
    ours = type(default).__module__.startswith("ftlab.")
    if ours and dataclasses.is_dataclass(default):  # a section of its own shows the usual values
        other = (f"{field.name}={value!r}" for field in dataclasses.fields(default)
                 if (value := getattr(default, field.name)) != field.default)
        return f"{type(default).__name__}({', '.join(other)})"
    if ours and type(default).__repr__ is object.__repr__:
        return f"{type(default).__name__}()"
    return repr(default)


def documented(cls: type) -> dict[str, str]:
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
