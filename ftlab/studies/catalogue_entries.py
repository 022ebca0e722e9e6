"""The classes that a study may name, as plain values for programs."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ftlab.errors import InputError
from ftlab.studies.catalogue import (
    TRAINER,
    classes_of,
    documented,
    every_class,
    kind_of,
    readable,
    words,
)
from ftlab.studies.check_cache import remembered
from ftlab.studies.components import schema
from ftlab.studies.discover import FAMILIES, family, members
from ftlab.wording import did_you_mean

Entry = dict[str, Any]


def entries(room: str | None, allow: Sequence[str] = ()) -> Entry:
    """The entries of `catalogue`, under the key `classes`: of every room, of one, or of one class.

    Args:
        room: of `FAMILIES`, `trainer`, or the name of a class; None for every room, without arguments.
        allow: packages outside ftlab that are looked into.

    Raises:
        InputError: there is neither such a room nor such a class.
    """
    if allow:
        return {"classes": list(_entries(room, allow))}
    found: list[Entry] = remembered(("entries", room), lambda: list(_entries(room, ())))
    return {"classes": found}


def _entries(room: str | None, allow: Sequence[str]) -> Iterator[Entry]:
    if room is None:
        for name in FAMILIES:
            for cls in members(family(name), allow).values():
                yield _title(cls, name)
    elif room in FAMILIES:
        yield from _detailed(members(family(room), allow).values(), room, allow)
    elif room == TRAINER:
        from ftlab.training.trainer_settings import TrainerSettings  # whose room is of torch

        yield from _detailed([TrainerSettings], TRAINER, allow)
    else:
        classes = every_class(allow)
        if room not in classes:
            raise InputError(f"there is neither a room nor a class {room!r}",
                             did_you_mean(room, [*FAMILIES, TRAINER, *classes], "ftlab list"))
        cls = classes[room]
        yield from _detailed([cls], _room(cls), allow)


def _room(cls: type) -> str | None:
    return next((name for name in FAMILIES if issubclass(cls, family(name))), None)


def _title(cls: type, room: str | None) -> Entry:
    return {"room": room, "name": cls.__name__, "summary": (inspect.getdoc(cls) or "").partition("\n")[0]}


def _detailed(classes: Iterable[type], room: str | None, allow: Sequence[str]) -> Iterator[Entry]:
    from ftlab.tasks.base import Task
    from ftlab.tasks.metric import LOSS

    for cls in classes:
        texts = documented(cls)
        entry = {**_title(cls, room), "arguments": [
            _argument(name, parameter, texts.get(name, ""), allow) for name, parameter in schema(cls).items()]}
        if issubclass(cls, Task):
            made = (LOSS, *cls().metrics())
            entry["metrics"] = [{"name": metric.name, "higher_is_better": metric.higher_is_better,
                                 "unit": metric.unit} for metric in made]
        yield entry


def _argument(name: str, parameter: inspect.Parameter, text: str, allow: Sequence[str]) -> Entry:
    required = parameter.default is inspect.Parameter.empty
    kind = kind_of(parameter)
    room = None if kind is None else next((name for name in FAMILIES if family(name) is kind), None)
    plain = kind is None or dataclasses.is_dataclass(kind)
    takes = [] if kind is None or room else list(classes_of(kind, allow))
    default = None if required else parameter.default
    if not isinstance(default, bool | int | float | str | None):
        default = list(default) if isinstance(default, tuple | list) else readable(default)
    of = words(parameter.annotation) if plain else f"class of {room}" if room else "class"
    return {"name": name, "type": of, "required": required, "default": default, "takes": takes, "text": text}
