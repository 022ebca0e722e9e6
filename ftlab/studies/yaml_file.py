"""Study files as plain data, with the line of every key."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ftlab.errors import InputError
from ftlab.studies.yaml_schema import (
    LARGEST,
    MALFORMED,
    RECORDED,
    TIMES,
    Loader,
    Refused,
    plain,
    text_of,
)

Path_ = tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """The place of a value, for messages: `quickstart.yaml:12: techniques.lora.init_args.rank`."""

    file: str
    lines: dict[Path_, int] = field(default_factory=dict, compare=False)
    keys: Path_ = ()

    def __truediv__(self, key: str) -> Place:
        return Place(self.file, self.lines, (*self.keys, key))

    def __str__(self) -> str:
        keys = self.keys
        while keys and keys not in self.lines:
            keys = keys[:-1]
        line = f":{self.lines[keys]}" if keys else ""
        dotted = ".".join(self.keys)
        return f"{self.file}{line}: {dotted}" if dotted else f"{self.file}{line}"


def study_name(given: str) -> str:
    """The name in a study file; anything else is a name.

    Raises:
        InputError: no such file, or it has no name.
    """
    path = Path(given)
    if path.suffix not in (".yaml", ".yml") and not path.is_file():
        return given
    data, place = read(path)
    name = text_of(data.get("name"))
    if not isinstance(name, str):
        raise InputError(f"{place / 'name'}: no name", "give a study file, or the study's name")
    return name


def read(path: Path) -> tuple[dict[str, Any], Place]:
    """A mapping from a YAML file, with the place of its keys.

    Raises:
        InputError: no file, no YAML, no mapping, a key that stands twice, or more than a study
            can be.
    """
    text = _text(path)
    lines: dict[Path_, int] = {}
    try:
        data = _constructed(text, str(path), lines)
    except MALFORMED as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        if isinstance(error, Refused):
            raise InputError(f"{path}{line}: {_problem(error)}", error.mend) from error
        raise InputError(
            f"{path}{line}: not YAML: {_problem(error)}",
            "mend the line or the one before; a text with ': ' or a sign at its beginning is quoted",
        ) from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: a study file is a mapping of keys to values", "see experiments/")
    return data, Place(str(path), lines)


def _text(path: Path) -> str:
    """The text of a file, of which no more is read than a study can have."""
    try:
        with path.open("rb") as file:
            content, most = file.read(LARGEST + 1), LARGEST
            if content.startswith(RECORDED.encode()):
                most *= TIMES
                content += file.read(most - LARGEST)
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error.strerror)
        raise InputError(f"{path}: {reason}", "give the path of a study or sweep file (YAML)") from error
    if len(content) > most:
        raise InputError(f"{path}: larger than {most // 1024} KiB",
                         "shorten it; examples and their like have files of their own")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte {error.start})", "save it as UTF-8") from error


def _problem(error: Exception) -> str:
    if not isinstance(error, yaml.YAMLError):
        return "an escaped character, or a version of YAML, that does not exist"
    return getattr(error, "problem", None) or str(error).partition("\n")[0]


def _constructed(text: str, name: str, lines: dict[Path_, int]) -> Any:
    """The document's data; `lines` takes the line of every key."""
    loader = Loader(text)
    node = loader.get_single_node()
    if node is None:
        return None
    _index(node, (), lines, name)
    return loader.construct_document(node)


def _index(node: yaml.Node, keys: Path_, lines: dict[Path_, int], name: str) -> None:
    if isinstance(node, yaml.SequenceNode):
        for place, item in enumerate(node.value):
            _index(item, (*keys, str(place)), lines, name)
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        here = (*keys, str(key.value))
        if here in lines:
            raise InputError(
                f"{name}:{key.start_mark.line + 1}: {'.'.join(here)} stands twice "
                f"(first in line {lines[here]})",
                "rename or remove one of the two; quotes make no difference to a key",
            )
        lines[here] = key.start_mark.line + 1
        _index(value, here, lines, name)


def typed(value: Any, place: Place) -> Any:
    """Values as arguments take them: numbers that can be computed with and stored, and texts.

    Raises:
        InputError: a number that is not finite, or a whole number beyond 64 bits.
    """
    if isinstance(value, dict):
        return {key: typed(part, place / str(key)) for key, part in value.items()}
    if isinstance(value, list):
        return [typed(part, place / str(number)) for number, part in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{place}: expected a finite number, got {value}",
                         "give a number; what has no limit is null, where it may be")
    if isinstance(value, int) and not -2**63 <= value < 2**63:
        raise InputError(f"{place}: a whole number beyond 64 bits, {value:.3e}"
                         if abs(value) < 10**300 else f"{place}: a whole number beyond 64 bits",
                         "give a smaller one")
    return plain(value)


def parse_value(text: str) -> Any:
    """One value as a study file would read it.

    Raises:
        ValueError: not YAML.
    """
    try:
        return _constructed(text, "the value", {})
    except InputError as error:
        raise ValueError(error.what) from error
    except MALFORMED as error:
        raise ValueError(_problem(error)) from error
