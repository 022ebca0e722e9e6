"""JSON Schema of constructors: what a file may write for a class, with types, ranges and texts."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from ftlab.studies.catalogue import documented, readable
from ftlab.studies.components import component_of, is_optional, schema
from ftlab.studies.discover import members

Schema = dict[str, Any]
TEXT: Schema = {"type": ["string", "number", "boolean"]}
"""A text; what looks like a number is its digits as written."""
_NUMBERS = {int: "integer", float: "number"}


class Definitions:
    """The definitions that a schema refers to, made as they are asked for.

    Args:
        allow: packages outside ftlab whose classes may be named.

    Attributes:
        made: by name, for the key `$defs`.
    """

    def __init__(self, allow: Sequence[str] = ()) -> None:
        self.allow = tuple(allow)
        self.made: dict[str, Schema] = {}

    def family(self, base: type, beside: Mapping[str, Schema] | None = None) -> Schema:
        """The schema of a place for a class of a family: its name, or the class and its arguments.

        Args:
            base: the family's base class.
            beside: further keys that may stand beside class and arguments.
        """
        name = f"Any{base.__name__}" + ("Entry" if beside is not None else "")
        if name not in self.made:
            self.made[name] = {}  # a technique may hold another one
            self.made[name] |= self._family(base, beside)
        return _refer(name)

    def _family(self, base: type, beside: Mapping[str, Schema] | None) -> Schema:
        classes = members(base, self.allow)
        bare = [name for name, cls in classes.items() if not _required(cls)]
        chosen = [{
            "if": {"properties": {"class_path": {"enum": [name, f"{cls.__module__}.{name}"]}},
                   "required": ["class_path"]},
            "then": {"properties": {"init_args": {"anyOf": [self.arguments(cls), {"type": "null"}]
                                                  if name in bare else [self.arguments(cls)]}},
                     "required": [] if name in bare else ["init_args"]},
        } for name, cls in classes.items()]
        paths = [f"{cls.__module__}.{name}" for name, cls in classes.items()]
        whole = {
            "type": "object", "required": ["class_path"], "additionalProperties": False,
            "properties": {
                "class_path": {"anyOf": [{"enum": list(classes)}, {"enum": paths}, *self._foreign()]},
                "init_args": {"type": ["object", "null"]}, **(beside or {})},
            "allOf": chosen,
        }
        bare_paths = [path for path in paths if path.rpartition(".")[2] in bare]
        forms: list[Schema] = [{"enum": bare}, {"enum": bare_paths}, *self._foreign(), whole]
        if len(classes) == 1 and beside is None:  # its arguments alone
            forms.append(self.arguments(next(iter(classes.values()))))
        return {"description": _first_line(base), "anyOf": forms}

    def _foreign(self) -> list[Schema]:
        """Classes deep in an allowed package, by their full path."""
        return [{"type": "string", "pattern": f"^{re.escape(package)}\\."} for package in self.allow]

    def arguments(self, cls: type) -> Schema:
        """The schema of a constructor's arguments."""
        if cls.__name__ not in self.made:
            self.made[cls.__name__] = {}
            texts = documented(cls)
            self.made[cls.__name__] |= {
                "type": "object", "title": cls.__name__, "description": _description(cls),
                "additionalProperties": False, "required": _required(cls),
                "properties": {name: self._argument(cls, name, parameter, texts.get(name, ""))
                               for name, parameter in schema(cls).items()}}
        return _refer(cls.__name__)

    def _argument(self, cls: type, name: str, parameter: inspect.Parameter, text: str) -> Schema:
        kind = component_of(parameter)
        if kind is None:
            made = self.value(parameter.annotation)
            made |= _bounds(cls, name, parameter.annotation)  # which hold numbers alone
        else:
            made = self.family(kind)
            made = {"anyOf": [made, {"type": "null"}]} if is_optional(parameter) else made
        default = parameter.default
        if default is not inspect.Parameter.empty:
            plain = default is None or isinstance(default, (bool, int, float, str))
            text += "" if plain else f" [{readable(default)}]"
            made = {**made, "default": default} if plain else made
        return {"description": text.strip(), **made}

    def value(self, annotation: Any) -> Schema:
        """The schema of a type's values."""
        origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
        if origin in (types.UnionType, typing.Union):
            return _either([self.value(part) for part in parts])
        if origin is typing.Literal:
            return {"enum": list(parts)}
        if annotation in (None, type(None)):
            return {"type": "null"}
        if annotation is bool:
            return {"type": "boolean"}
        if annotation in _NUMBERS:
            return {"type": _NUMBERS[annotation]}
        if annotation is str:
            return dict(TEXT)
        if dataclasses.is_dataclass(annotation):
            return self.arguments(typing.cast(type, annotation))
        holder = origin or annotation
        if inspect.isclass(holder) and issubclass(holder, Mapping):
            return {"type": "object", "additionalProperties": self.value(parts[1]) if parts else {}}
        if inspect.isclass(holder) and issubclass(holder, Sequence):
            return self._sequence(parts)
        return {}  # anything

    def _sequence(self, parts: tuple[Any, ...]) -> Schema:
        if len(parts) < 2 or parts[1] is Ellipsis:
            return {"type": "array", "items": self.value(parts[0]) if parts else {}}
        return {"type": "array", "minItems": len(parts), "maxItems": len(parts),
                "prefixItems": [self.value(part) for part in parts]}


def _refer(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _either(forms: list[Schema]) -> Schema:
    """One of several; plain types as a list of their names, which editors show best."""
    plain = [form for form in forms if set(form) == {"type"}]
    names = [name for form in plain for name in (
        form["type"] if isinstance(form["type"], list) else [form["type"]])]
    joined = [{"type": list(dict.fromkeys(names))}] if names else []
    others = [form for form in forms if form not in plain]
    return joined[0] if joined and not others else {"anyOf": [*joined, *others]}


def _required(cls: type) -> list[str]:
    return [name for name, parameter in schema(cls).items()
            if parameter.default is inspect.Parameter.empty]


def _first_line(cls: type) -> str:
    return next(iter(inspect.cleandoc(cls.__doc__ or "").splitlines()), "")


def _description(cls: type) -> str:
    """The docstring without its sections of arguments and attributes."""
    text = inspect.cleandoc(cls.__doc__ or "")
    for section in ("\nArgs:", "\nAttributes:", "\nRaises:"):
        text = text.partition(section)[0]
    return text.strip()


def _bounds(cls: type, name: str, annotation: Any) -> Schema:
    """The range of a number, as the constructor's own check has it.

    No annotation says it: values are tried, and one that is refused by the argument's name lies
    outside. Checks of several arguments together are not seen.
    """
    options = typing.get_args(annotation) if typing.get_origin(annotation) in (
        types.UnionType, typing.Union) else (annotation,)
    if not set(_NUMBERS) & set(options):
        return {}
    whole = int in options and float not in options
    takes = functools.partial(_takes, cls, name)
    if not (takes(1) or takes(2) or takes(0.5)):
        return {}  # refused whatever it is: other arguments are wanted with it
    bounds: Schema = {}
    if not takes(-1):
        if whole:
            bounds["minimum"] = next(value for value in (0, 1, 2) if takes(value))
        else:
            bounds |= {"minimum": 0} if takes(0.0) else {"exclusiveMinimum": 0}
    if not whole and not takes(1e9) and not (int in options and takes(1000)):
        if takes(1.0):
            bounds["maximum"] = 1
        elif takes(0.999):
            bounds["exclusiveMaximum"] = 1
    return bounds


def _takes(cls: type, name: str, value: float) -> bool:
    """Return whether a constructor takes a value, or refuses it for another argument's sake."""
    needed = {key: "text" for key in _required(cls) if key != name}
    try:
        cls(**needed, **{name: value})
    except ValueError as error:  # which is how a constructor refuses a value
        return name not in str(error)
    except (TypeError, AttributeError):  # a text stands for what the class needs, and is none
        return True
    return True
