"""`--set a.b.c=value`, laid into a study file's data."""

from __future__ import annotations

import copy
from typing import Any

from ftlab.errors import InputError
from ftlab.studies.yaml_file import parse_value
from ftlab.studies.yaml_schema import DEEPEST


def override(data: dict[str, Any], given: str) -> None:
    """Put `a.b.c=value` into the file's data.

    Raises:
        InputError: it has no value, or its place cannot have one.
    """
    dotted, equals, text = given.partition("=")
    if not equals or not dotted:
        raise InputError(f"--set {given}: no value", "--set trainer.max_epochs=1")
    try:
        value = parse_value(text)
    except ValueError as error:
        raise InputError(f"--set {given}: {error}", "quote the value as in YAML") from error
    *parents, last = dotted.split(".")
    if parents[:1] == ["vary"]:  # whose keys are paths
        parents, last = ["vary"], dotted.removeprefix("vary.")
    if len(parents) >= DEEPEST:
        raise InputError(f"--set {dotted[:40]}...: more than {DEEPEST} levels deep",
                         "--set trainer.max_epochs=1")
    node: Any = data
    for depth, key in enumerate(parents):
        at = _place_in(node, key, dotted)
        child = copy.copy(node[at] if isinstance(node, list) else node.get(at))
        if isinstance(child, str) and (depth == 1 or [*parents, last][depth + 1] == "init_args"):
            child = {"class_path": child}  # `probe: LinearProbe`
        if child is not None and not isinstance(child, dict | list):
            raise InputError(f"--set {dotted}: {key} holds a value, no keys", "see the study file")
        node[at] = child if child is not None else {}
        node = node[at]
    node[_place_in(node, last, dotted)] = value


def _place_in(node: dict[str, Any] | list[Any], key: str, dotted: str) -> Any:
    """A key of a mapping, or a place of a list (stages), from 0.

    Raises:
        InputError: the list has no such place.
    """
    if not isinstance(node, list):
        return key
    if not key.isdecimal() or int(key) >= len(node):
        raise InputError(f"--set {dotted}: {key} is not a place in a list of {len(node)}",
                         "places are counted from 0, as in before.0.technique")
    return int(key)
