"""Study files as plain data that knows the line of every key."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ftlab.errors import InputError
from ftlab.studies.yaml_schema import Loader, text_of

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


def study_name(given: str) -> str:
    """Of a study file the name in it; anything else is a name.

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
        InputError: no file, no YAML, no mapping, a key that stands twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise InputError(f"{path}: not UTF-8 (byte {error.start})", "save it as UTF-8") from error
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise InputError(f"{path}: {reason}", "give the path of a study file (YAML)") from error
    lines: dict[Path_, int] = {}
    try:
        data = _constructed(text, str(path), lines)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise InputError(
            f"{path}{line}: not YAML: {problem}",
            "mend the line or the one before; a text with ': ' or a sign at its beginning is quoted",
        ) from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: a study file is a mapping of keys to values", "see experiments/")
    return data, Place(str(path), lines)


def _constructed(text: str, name: str, lines: dict[Path_, int]) -> Any:
    """The document's data; `lines` takes the line of every key."""
    loader = Loader(text)
    node = loader.get_single_node()
    if node is None:
        return None
    _index(node, (), lines, name, ())
    return loader.construct_document(node)


def _index(node: yaml.Node, keys: Path_, lines: dict[Path_, int], name: str,
           above: tuple[yaml.Node, ...]) -> None:
    if node in above:
        line = node.start_mark.line + 1
        raise InputError(f"{name}:{line}: {'.'.join(keys)} holds itself", "remove the alias (*)")
    if isinstance(node, yaml.SequenceNode):
        for place, item in enumerate(node.value):
            _index(item, (*keys, str(place)), lines, name, (*above, node))
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
        _index(value, here, lines, name, (*above, node))


def parse_value(text: str) -> Any:
    """One value as a study file would read it.

    Raises:
        ValueError: not YAML.
    """
    try:
        return _constructed(text, "the value", {})
    except InputError as error:
        raise ValueError(error.what) from error
    except yaml.YAMLError as error:
        raise ValueError(getattr(error, "problem", None) or str(error).splitlines()[0]) from error
