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
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

LARGEST = 256 * 1024
"""Bytes of a file, which take the reader a second at most."""
MOST = 10_000
"""Values and keys of a file, every alias counted as all that it stands for."""
DEEPEST = 50
"""Levels of mappings and lists within each other, through aliases too."""
RECORDED = "# Written by ftlab: the study as it was checked"
"""Begins a study that ftlab wrote, where every default is said: such a file may have ten times as
many bytes and values."""
TIMES = 10
MALFORMED = (yaml.YAMLError, ValueError, OverflowError)
"""Raised by the reader: its own, and `chr` and `int` of what a text escapes or a version says."""
_LONG = 1000  # characters of a text that are not worth asking of what kind they could be
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
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, WrittenInt):
        return int(value)
    return float(value) if isinstance(value, WrittenFloat) else value


def text_of(value: Any) -> Any:
    """A number as the text that the file shows; everything else as it is."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if number else value


class Refused(ComposerError):
    """Well-formed YAML that no study file is.

    Args:
        problem: in the middle of a message.
        mark: where it stands.
        mend: how to mend it.
    """

    def __init__(self, problem: str, mark: yaml.Mark, mend: str) -> None:
        super().__init__(None, None, problem, mark)
        self.mend = mend


class _BoundedLoader(yaml.SafeLoader):
    """Refuses what would grow or sink without end, while it is read and before it is built."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._count = self._depth = 0
        self._most = MOST * TIMES if text.startswith(RECORDED) else MOST
        self._sizes: dict[yaml.Node, tuple[int, int]] = {}  # values and levels, aliases expanded

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """A node with all below it; `index` is its key, and None where it is itself a key."""
        mark, alias = self.peek_event().start_mark, self.check_event(yaml.AliasEvent)
        before, self._count, self._depth = self._count, self._count + 1, self._depth + 1
        self._check(0, mark)
        node = super().compose_node(parent, index)
        if node is None:
            return None
        if isinstance(parent, yaml.MappingNode) and index is None \
                and not isinstance(node, yaml.ScalarNode):
            raise Refused("a key is a text, not a list or a mapping", mark, "write one word")
        if not alias:
            levels = max((self._sizes[part][1] for part in _parts(node)), default=0)
            self._sizes[node] = self._count - before, levels + 1
        elif node not in self._sizes:
            raise Refused("the alias holds itself", mark, "remove the alias (*)")
        size, levels = self._sizes[node]
        self._count = before + size
        self._check(levels - 1, mark)
        self._depth -= 1
        return node

    def _check(self, below: int, mark: yaml.Mark) -> None:
        if self._count > self._most:
            raise Refused(f"more than {self._most:,} values, with all that aliases (*) stand for",
                          mark, "shorten it; examples and their like have files of their own")
        if self._depth + below > DEEPEST:
            raise Refused(f"more than {DEEPEST} levels deep", mark, "take out some brackets")


def _parts(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair


class Loader(_BoundedLoader):
    """Reads the core schema; a key is its text, and a tag outside the schema is refused."""

    yaml_implicit_resolvers = {}
    yaml_constructors = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping under keys as they are written; `<<` lays it upon another one."""
        if not isinstance(node, yaml.MappingNode):  # under a tag that somebody wrote
            raise ConstructorError(None, None, "it is not a mapping", node.start_mark)
        self.flatten_mapping(node)
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
        made.source = text
        return int(made) if int.__repr__(made) == text else made
    except ValueError as error:  # more digits than Python turns into a number, or back
        raise ConstructorError(None, None, f"a number of {len(text)} digits",
                               node.start_mark) from error


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
    loader.construct_scalar(node)  # which refuses a list or mapping under a written tag
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
    """Return whether some reader of YAML may take the text, unquoted, for something else."""
    if len(text) > _LONG:
        return True
    try:
        node = yaml.compose(text, Loader=_EitherLoader)
    except MALFORMED:
        return True
    return not isinstance(node, yaml.ScalarNode) or node.tag != f"{_TAG}str"


class _EitherLoader(_BoundedLoader):
    yaml_implicit_resolvers = _Dumper.yaml_implicit_resolvers
