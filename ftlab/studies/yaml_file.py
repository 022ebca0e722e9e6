"""Study files as plain data that knows the line of every key."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ftlab.errors import InputError

Path_ = tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """Where a value stands, for messages: `quickstart.yaml:12: techniques.lora.init_args.rank`."""

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


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-4 as a number, as YAML 1.2 does."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)$"),
    list("-+0123456789."),
)


def study_name(given: str) -> str:
    """Of a study file the name in it; anything else is a name.

    Raises:
        InputError: no such file, or it has no name.
    """
    path = Path(given)
    if path.suffix not in (".yaml", ".yml") and not path.is_file():
        return given
    data, place = read(path)
    if not isinstance(data.get("name"), str):
        raise InputError(f"{place / 'name'}: no name", "give a study file, or the study's name")
    return str(data["name"])


def read(path: Path) -> tuple[dict[str, Any], Place]:
    """A mapping from a YAML file, with the place of its keys.

    Raises:
        InputError: no file, no YAML, no mapping, a key that stands twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise InputError(f"{path}: {reason}", "give the path of a study file (YAML)") from error
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        lines: dict[Path_, int] = {}
        if node is not None:
            _index(node, (), lines, path)
        data = loader.construct_document(node) if node is not None else None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise InputError(f"{path}{line}: not YAML: {problem}", "mend the line or the one before") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: a study file is a mapping of keys to values", "see experiments/")
    return data, Place(str(path), lines)


def _index(node: yaml.Node, keys: Path_, lines: dict[Path_, int], path: Path) -> None:
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        here = (*keys, str(key.value))
        if here in lines:
            raise InputError(
                f"{path}:{key.start_mark.line + 1}: {'.'.join(here)} stands twice "
                f"(first in line {lines[here]})",
                "rename or remove one of the two",
            )
        lines[here] = key.start_mark.line + 1
        _index(value, here, lines, path)


def parse_value(text: str) -> Any:
    """One value as a study file would read it.

    Raises:
        ValueError: not YAML.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(str(error).splitlines()[0]) from error
