"""YAML as a reader sees it: version 1.2's core schema, keys as they are written, nothing else.

`on`, `no`, `12:30`, `2024-01-01` and `1_0` are texts, and only true and false are booleans
(https://yaml.org/spec/1.2.2/#103-core-schema). A number remembers how it is written, so that `010`
can be a text where a text is wanted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import yaml
from yaml.constructor import ConstructorError

_TAG = "tag:yaml.org,2002:"
_CORE = {  # kind -> how it is written, and the characters that it begins with
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    "float": (r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
              + r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+0123456789.")),
}
_BREAKS = re.compile("[\r\x85\u2028\u2029]")
_WRITTEN = {kind: re.compile(pattern) for kind, (pattern, _) in _CORE.items()}


class WrittenInt(int):
    """A whole number that is not written as Python writes it: `010`, `0x1F`, `+5`."""

    source: str

    def __repr__(self) -> str:
        return self.source


class WrittenFloat(float):
    """A number that is not written as Python writes it: `1e3`, `.5`, `5.0e-5`."""

    source: str

    def __repr__(self) -> str:
        return self.source


def plain(value: Any) -> Any:
    """Data without a memory of how its numbers are written."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, WrittenInt):
        return int(value)
    return float(value) if isinstance(value, WrittenFloat) else value


def text_of(value: Any) -> Any:
    """A number as the text that the file shows; everything else as it is."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if number else value


class Loader(yaml.SafeLoader):
    """Reads the core schema; a key is its text, and a tag outside the schema is refused."""

    yaml_implicit_resolvers = {}
    yaml_constructors = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping under keys as they are written; `<<` lays it upon another one."""
        self.flatten_mapping(node)
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise ConstructorError(None, None, "a key is a text", key.start_mark)
        return {_characters(key): self.construct_object(value, deep=True)
                for key, value in node.value}


def _scalar(loader: Loader, node: yaml.ScalarNode) -> Any:
    kind, text = node.tag.removeprefix(_TAG), str(loader.construct_scalar(node))
    if not _WRITTEN[kind].fullmatch(text):  # under a tag that somebody wrote
        raise ConstructorError(None, None, f"{text!r} is not of {kind}", node.start_mark)
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    return _whole(text, node) if kind == "int" else _number(text, node)


def _whole(text: str, node: yaml.ScalarNode) -> int:
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    try:
        made = WrittenInt(text[2:] if base != 10 else text, base)
    except ValueError as error:  # more digits than Python turns into a number
        raise ConstructorError(None, None, str(error), node.start_mark) from error
    made.source = text
    return int(made) if int.__repr__(made) == text else made


def _number(text: str, node: yaml.ScalarNode) -> float:
    special = text.lower().endswith(("inf", "nan"))
    made = WrittenFloat(text.replace(".", "", 1) if special else text)
    if math.isinf(made) and not special:
        raise ConstructorError(None, None, f"{text} is larger than any number", node.start_mark)
    made.source = text
    return float(made) if float.__repr__(made) == text else made


def _map(loader: Loader, node: yaml.MappingNode) -> Iterator[dict[str, Any]]:
    made: dict[str, Any] = {}
    yield made  # before what it holds, which may name it
    made.update(loader.construct_mapping(node))


def _unknown(loader: Loader, node: yaml.Node) -> Any:
    return loader.construct_undefined(node)


for _kind, (_pattern, _first) in _CORE.items():
    Loader.add_implicit_resolver(f"{_TAG}{_kind}", re.compile(rf"^(?:{_pattern})$"), _first)
    Loader.add_constructor(f"{_TAG}{_kind}", _scalar)
Loader.add_implicit_resolver(f"{_TAG}merge", re.compile("^<<$"), ["<"])
def _characters(node: yaml.ScalarNode) -> str:
    r"""The text; JSON writes a character beyond 16 bits as two escapes, "\ud83d\ude00"."""
    text = str(node.value)
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise ConstructorError(None, None, f"{text!a} has half a character in it",
                               node.start_mark) from None


def _string(loader: Loader, node: yaml.ScalarNode) -> str:
    return _characters(node)


Loader.add_constructor(f"{_TAG}str", _string)
for _kind in ("seq",):
    Loader.add_constructor(f"{_TAG}{_kind}", getattr(Loader, f"construct_yaml_{_kind}"))
Loader.add_constructor(f"{_TAG}map", _map)
Loader.add_constructor(None, _unknown)


class _Dumper(yaml.SafeDumper):
    """Quotes each text that YAML 1.1 or 1.2 would read as something else."""


for _kind, (_pattern, _first) in _CORE.items():
    _Dumper.add_implicit_resolver(f"{_TAG}{_kind}", re.compile(rf"^(?:{_pattern})$"), _first)


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    """In double quotes where the lines of other styles would not come back as they are."""
    style = '"' if _BREAKS.search(value) else None
    return dumper.represent_scalar(f"{_TAG}str", value, style)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(
    WrittenInt, lambda dumper, value: dumper.represent_scalar(f"{_TAG}int", value.source))
_Dumper.add_representer(
    WrittenFloat, lambda dumper, value: dumper.represent_scalar(f"{_TAG}float", value.source))


def dump(data: Any, width: int = 100) -> str:
    """Plain data as YAML that `Loader` reads back equal, and every other reader too."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=width)
    return text


def ambiguous(text: str) -> bool:
    """Return whether some reader of YAML takes the text, unquoted, for something else."""
    try:
        node = yaml.compose(text, Loader=_EitherLoader)
    except yaml.YAMLError:
        return True
    return not isinstance(node, yaml.ScalarNode) or node.tag != f"{_TAG}str"


class _EitherLoader(yaml.SafeLoader):
    yaml_implicit_resolvers = _Dumper.yaml_implicit_resolvers
