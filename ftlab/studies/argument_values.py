"""Values of a file as its arguments take them: texts stay the texts that a reader sees.

A number where a text is wanted is its digits as written (`classes: {neg: 0}`, `text: 2024`), and a
text is not read a second time, as jsonargparse would read `"null"` or `"01"`.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ftlab.errors import InputError
from ftlab.studies.yaml_file import Place, parse_value
from ftlab.studies.yaml_schema import ambiguous

_SEAL = "\N{OBJECT REPLACEMENT CHARACTER}"  # no sign of YAML's, so that what it begins is a text
_SEALED = re.compile(f"{_SEAL}([0-9a-f]*){_SEAL}")
_NUMBERS = {int: "a whole number", float: "a number", bool: "true or false", type(None): ""}
_QUOTE = 'a text is quoted: "{}"'
Leaf = Callable[[Sequence[Any], Any, Place], Any]


def as_shown(wanted: Any, value: Any, place: Place) -> Any:
    """The value with numbers as texts where the annotation wants texts.

    Raises:
        InputError: true, false or null where a text is wanted; says that quotes help.
    """
    return _leaves(wanted, value, place, _written)


def check_groups(wanted: Any, value: Any, place: Place) -> None:
    """Refuse a single value where a group of values is wanted, which jsonargparse takes.

    Raises:
        InputError: with the place, and how such a group begins.
    """
    options = list(_options(wanted))
    if isinstance(value, Mapping):
        for key, inner in value.items():
            check_groups(_of_key(options, key), inner, place / str(key))
    elif value is not None and (group := _group(options)) is not None:
        raise InputError(f"{place}: expected a mapping, got {value}",
                         f"{{{dataclasses.fields(group)[0].name}: ...}}")


def sealed(wanted: Any, value: Any) -> Any:
    """The value with texts that jsonargparse would read as something else made opaque to it."""
    return _leaves(wanted, value, Place(""), _opaque)


def unsealed(value: Any) -> Any:
    """Open what jsonargparse made of sealed values, with their texts."""
    if isinstance(value, str):
        return _SEALED.sub(lambda hidden: bytes.fromhex(hidden[1]).decode(), value)
    if isinstance(value, dict):
        return {key: unsealed(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(unsealed, value))
    return value


def built(wanted: Any, value: Any) -> Any:
    """Plain values as the dataclasses that the annotation names."""
    options = list(_options(wanted))
    if isinstance(value, Mapping):
        made = {key: built(_of_key(options, key), inner) for key, inner in value.items()}
        return next((option(**made) for option in options
                     if isinstance(option, type) and dataclasses.is_dataclass(option)), made)
    if isinstance(value, list | tuple):
        return type(value)(built(_of_item(options, n), inner) for n, inner in enumerate(value))
    return value


def _leaves(wanted: Any, value: Any, place: Place, leaf: Leaf) -> Any:
    """The value with `leaf` applied to each of its parts, which is given the types that it may have."""
    options = list(_options(wanted))
    if isinstance(value, Mapping):
        return {key: _leaves(_of_key(options, key), inner, place / str(key), leaf)
                for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_leaves(_of_item(options, n), inner, place / str(n), leaf)
                for n, inner in enumerate(value)]
    return leaf(options, value, place)


def _group(options: Sequence[Any]) -> Any:
    """The group of values, a dataclass, beside which nothing else may stand there; None without."""
    kinds = [option for option in options if option is not type(None)]
    alone = bool(kinds) and all(isinstance(kind, type) and dataclasses.is_dataclass(kind) for kind in kinds)
    return kinds[0] if alone else None


def _written(options: Sequence[Any], value: Any, place: Place) -> Any:
    if value is None and not {type(None), Any, object} & set(options):
        raise InputError(f"{place}: expected {_kinds(options)}, got null", _QUOTE.format("null")
                         if str in options else "give a value, or remove the key")
    if isinstance(value, str):
        _check_text(options, value, place)
        return value
    if str not in options and str(value) not in _literals(options):
        return value
    if isinstance(value, bool) and bool not in options:
        word = str(value).lower()
        raise InputError(f"{place}: expected {_kinds(options)}, got {word}", _QUOTE.format(word))
    if value is None or isinstance(value, bool) or float in options:
        return value
    return value if int in options and type(value) is int else str(value)


def _kinds(options: Sequence[Any]) -> str:
    """Say in words what an argument takes."""
    kinds = [_NUMBERS.get(option, "text" if option is str else "") for option in options]
    return " or ".join(filter(None, kinds)) or "a value"


def _read(text: str) -> Any:
    try:
        return parse_value(text)
    except ValueError:
        return text


def _check_text(options: Sequence[Any], text: str, place: Place) -> None:
    """Refuse a text where only numbers or true and false can stand, and quotes may be the reason."""
    if not set(options) <= set(_NUMBERS):
        return
    if bool in options:
        raise InputError(f"{place}: expected {_kinds(options)}, got {text}",
                         "write true or false, without quotes")
    if isinstance(_read(text), int | float):
        raise InputError(f"{place}: expected {_kinds(options)}, got the text {text!r}",
                         f"write it without quotes: {text}")


def _opaque(options: Sequence[Any], value: Any, place: Place) -> Any:
    if not isinstance(value, str) or value in _literals(options) or not ambiguous(value):
        return value
    return f"{_SEAL}{value.encode().hex()}{_SEAL}"


def _options(wanted: Any) -> Iterator[Any]:
    """The types that an annotation allows, one by one."""
    origin = typing.get_origin(wanted)
    if origin in (typing.Union, types.UnionType):
        for option in typing.get_args(wanted):
            yield from _options(option)
    elif origin is typing.Annotated:
        yield from _options(typing.get_args(wanted)[0])
    else:
        yield wanted


def _literals(options: Sequence[Any]) -> list[Any]:
    return [value for option in options if typing.get_origin(option) is typing.Literal
            for value in typing.get_args(option)]


def _of_key(options: Sequence[Any], key: str) -> Any:
    """The annotation of what stands under a key."""
    for option in options:
        if dataclasses.is_dataclass(option) and isinstance(option, type):
            return typing.get_type_hints(option).get(key, Any)
        if issubclass(_class(option), Mapping) and typing.get_args(option):
            return typing.get_args(option)[1]
    return Any


def _of_item(options: Sequence[Any], place: int) -> Any:
    """The annotation of what stands at a place of a list."""
    for option in options:
        kind, of = _class(option), typing.get_args(option)
        if issubclass(kind, tuple) and of and of[-1] is not Ellipsis:
            return of[min(place, len(of) - 1)]
        if not issubclass(kind, str | Mapping) and issubclass(kind, typing.Iterable) and of:
            return of[0]
    return Any


def _class(option: Any) -> type:
    origin = typing.get_origin(option) or option
    return origin if isinstance(origin, type) else object
