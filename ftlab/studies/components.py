"""Constructors are the schema: checks what a study says against them, and builds it.

The only importer of jsonargparse. A component (technique, loss, data module, ...) is written
as `Name` or `{class_path: Name, init_args: {...}}`; its other arguments are plain values.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import types
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from ftlab.errors import InputError
from ftlab.studies.argument_values import as_shown, built, check_groups, sealed, unsealed
from ftlab.studies.discover import find, members
from ftlab.studies.yaml_file import Place, typed
from ftlab.wording import did_you_mean

_WORDS = {"True": "true", "False": "false", "None": "null"}

Component = dict[str, Any]
"""A checked component: `class_path` in full, `init_args` with every default filled in."""


def check(base: type, value: Any, place: Place, allow: Sequence[str] = (),
          beside: Sequence[str] = ()) -> Component:
    """Hold what a file says to the constructor of the class that it names.

    Args:
        base: the family, for instance `Technique`.
        value: from the file: a name, a class and its arguments, or its arguments alone where the
            family has but one class.
        place: where it stands.
        allow: packages outside ftlab whose classes may be named.
        beside: keys that may stand beside class and arguments, which the caller has taken out.

    Raises:
        InputError: unknown class or key, wrong type or range, a missing value.
    """
    if isinstance(value, Mapping) and "class_path" not in value and not beside:
        value = _of_the_only_class(base, value, allow)
    name, given = _written(value, place, beside)
    cls = find(base, name, allow, place)
    inner = place / "init_args" if isinstance(value, Mapping) else place
    parameters = schema(cls)
    check_keys(cls.__name__, given, parameters, inner)
    plain = {key: given[key] for key in given if component_of(parameters[key]) is None}
    settings = _plain(cls, plain, inner)
    for key, parameter in parameters.items():
        kind = component_of(parameter)
        if kind is None:
            continue
        if key not in given and parameter.default is inspect.Parameter.empty:
            raise InputError(f"{inner}: {cls.__name__} needs {key!r}", f"add {key}: NAME")
        part = given.get(key, _default(parameter))
        if part is None and not is_optional(parameter):
            raise InputError(f"{inner / key}: expected a {kind.__name__}, got null",
                             f"remove the key, or give one: {_default(parameter).rpartition('.')[2]}")
        settings[key] = None if part is None else check(kind, part, inner / key, allow)
    checked = {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": settings}
    try:
        build(checked)
    except ValueError as error:  # a constructor's own check of its values
        raise InputError(f"{place}: {cls.__name__}: {error}", "change the value") from error
    return checked


def check_keys(name: str, given: Iterable[str], parameters: Collection[str], place: Place) -> None:
    """Refuse a key that is not a parameter of the class called `name`.

    Raises:
        InputError: there is one.
    """
    for key in given:
        if key not in parameters:
            raise InputError(f"{place / str(key)}: {name} has no argument {key!r}",
                             did_you_mean(key, list(parameters)))


def arguments_of(base: str) -> dict[str, dict[str, str]]:
    """The arguments of each member of a family, with the family of those that are components.

    Args:
        base: the family's base class, in full.
    """
    module, _, name = base.rpartition(".")
    arguments: dict[str, dict[str, str]] = {}
    for cls in members(getattr(importlib.import_module(module), name)).values():
        kinds = {key: component_of(parameter) for key, parameter in schema(cls).items()}
        arguments[cls.__name__] = {key: f"{kind.__module__}.{kind.__qualname__}" if kind else ""
                                   for key, kind in kinds.items()}
    return arguments


def prepare(cls: type) -> None:
    """Read a class's schema before it is first built."""
    _parser(cls)


def class_of(component: Component) -> Any:
    """The class that a checked component names."""
    module, _, name = component["class_path"].rpartition(".")
    return getattr(importlib.import_module(module), name)


def build(component: Component) -> Any:
    """The object that a checked component describes."""
    cls = class_of(component)
    parameters = schema(cls)
    plain, parts = {}, {}
    for key, value in component["init_args"].items():
        if component_of(parameters[key]) is None:
            plain[key] = value
        else:
            parts[key] = None if value is None else build(value)
    return cls(**_values(cls, plain), **parts)


def task_of(data: Component) -> Any:
    """The task of a checked data module, before it has seen data."""
    task = data["init_args"].get("task")
    # ftlab's modules keep the task that they are given, and building it needs no Lightning
    return build(task) if task and data["class_path"].startswith("ftlab.") else build(data).task


def check_plain(cls: type, given: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """Hold a mapping to a dataclass of plain values; defaults are filled in.

    Raises:
        InputError: unknown key, wrong type or range.
    """
    parameters = schema(cls)
    for key in given:
        if key not in parameters:
            raise InputError(f"{place / key}: unknown key", did_you_mean(key, list(parameters)))
    checked = _plain(cls, dict(given), place)
    try:
        cls(**checked)
    except ValueError as error:
        raise InputError(f"{place}: {error}", "change the value") from error
    return checked


def schema(cls: type) -> dict[str, inspect.Parameter]:
    """The constructor's parameters, annotations resolved."""
    hints = typing.get_type_hints(cls.__init__)  # type: ignore[misc]  # of exactly this class
    parameters = inspect.signature(cls).parameters
    return {n: p.replace(annotation=hints.get(n, Any)) for n, p in parameters.items()}


def component_of(parameter: inspect.Parameter) -> type | None:
    """The family that a parameter takes a component of; None for plain values."""
    options = [parameter.annotation]
    if typing.get_origin(parameter.annotation) in (typing.Union, types.UnionType):
        options = [o for o in typing.get_args(parameter.annotation) if o is not type(None)]
    for option in options:
        ours = inspect.isclass(option) and option.__module__.startswith("ftlab.")
        if ours and not dataclasses.is_dataclass(option):
            return option
    return None


def is_optional(parameter: inspect.Parameter) -> bool:
    """Return whether null may stand where a parameter takes a component."""
    return parameter.default is None or type(None) in typing.get_args(parameter.annotation)


def _of_the_only_class(base: type, value: Mapping[str, Any], allow: Sequence[str]) -> Mapping[str, Any]:
    """`augment: {views: 4}`, where only one class may be meant, as its arguments."""
    known = members(base, allow)
    if len(known) > 1 or "init_args" in value:
        return value
    return {"class_path": next(iter(known)), "init_args": value}


def _written(value: Any, place: Place, beside: Sequence[str]) -> tuple[str, Mapping[str, Any]]:
    if isinstance(value, str):
        return value, {}
    if not isinstance(value, Mapping) or not isinstance(value.get("class_path"), str):
        raise InputError(
            f"{place}: expected a class", "write NAME, or {class_path: NAME, init_args: {...}}"
        )
    for key in value:
        if key not in ("class_path", "init_args"):
            allowed = ["class_path", "init_args", *beside]
            raise InputError(f"{place / str(key)}: unknown key", did_you_mean(key, allowed))
    given = value.get("init_args") or {}
    if not isinstance(given, Mapping):
        raise InputError(f"{place / 'init_args'}: expected a mapping of arguments", "key: value")
    return value["class_path"], given


def _default(parameter: inspect.Parameter) -> Any:
    """Stand in for a component that the file leaves out: its class, with its defaults."""
    if parameter.default is None:
        return None
    return f"{type(parameter.default).__module__}.{type(parameter.default).__qualname__}"


@cache  # a class's schema stays, and reading it takes 10 ms
def _parser(cls: type) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    skip = {name for name, parameter in schema(cls).items() if component_of(parameter) is not None}
    parser.add_class_arguments(cls, skip=skip)
    return parser


def _plain(cls: type, given: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """A file's arguments, checked, as plain data with every default."""
    parameters = schema(cls)
    for key, value in given.items():
        check_groups(parameters[key].annotation, value, place / key)
    written = {key: as_shown(parameters[key].annotation, value, place / key)
               for key, value in given.items()}
    values = typed(written, place)
    try:
        return _parsed(cls, values)
    except ArgumentError as error:
        raise _explained(error, place) from error


def _parsed(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    parameters = schema(cls)
    hidden = {key: sealed(parameters[key].annotation, value) for key, value in values.items()}
    arguments: dict[str, Any] = unsealed(_parser(cls).parse_object(hidden).as_dict())
    return arguments


def _values(cls: type, plain: Mapping[str, Any]) -> dict[str, Any]:
    """Checked arguments as the constructor takes them."""
    arguments = _parsed(cls, plain)
    if any(isinstance(value, Mapping) and "class_path" in value for value in arguments.values()):
        # an object of a class that is neither a dataclass nor of a family of ours
        parser = _parser(cls)
        return dict(vars(parser.instantiate(parser.parse_object(dict(plain)))))
    parameters = schema(cls)
    return {key: built(parameters[key].annotation, value) for key, value in arguments.items()}


def _explained(error: ArgumentError, place: Place) -> InputError:
    """A message of jsonargparse as one line of what and one of how."""
    text = unsealed(str(error))
    if missing := re.search(r"required: (.+)", text):
        return InputError(f"{place}: missing: {missing[1]}", "add it")
    if group := re.search(r"Group '(.+?)' does not accept option '(.+?)'", text):
        return InputError(f"{place / group[1] / group[2]}: unknown key", "see `ftlab list`")
    key = re.search(r'Parser key "(.+?)":', text)
    for part in key[1].split(".") if key else ():
        place = place / part
    if option := re.search(r"Option '(.+?)' is not accepted", text):  # of an object that may be null
        return InputError(f"{place / option[1]}: unknown key", "see `ftlab list`")
    expected = [
        _readable(kind)
        for kind in re.findall(r"(?:Expected an? |Not of type )(.+?)(?:\. Got|: |$)", text, re.MULTILINE)
        if "NoneType" not in kind
    ]
    got = re.search(r"(?:Got value|Given value): (.+)", text)
    if not expected:
        return InputError(f"{place}: {' '.join(text.split())}", "change the value")
    value = got[1].strip() if got else ""
    actual = f", got {_WORDS.get(value, value)}" if got else ""
    wanted = " or ".join(dict.fromkeys(expected))
    return InputError(f"{place}: expected {wanted}{actual}", "change the value")


def _readable(kind: str) -> str:
    kind = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", kind).replace("typing.", "")
    if choice := re.fullmatch(r"Literal\[(.+)\]", kind):
        return f"one of {choice[1]}"
    return {"str": "text", "int": "a whole number", "float": "a number", "bool": "true or false"}.get(kind, kind)
