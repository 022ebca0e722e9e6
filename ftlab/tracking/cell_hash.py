"""The hash of a cell's config, which stays what it is when a class gets another argument."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

from ftlab.tracking.mlflow_values import name_of

EMPTY: tuple[Any, ...] = (None, [], {})
"""Values that are left out of a hash: an argument that a later version adds defaults to one."""


NO_RESULT = ("save_every",)
"""Settings of the trainer that change no result."""

ONE = ("nodes", 1)
"""Such a setting is as if not written, too."""


def cell_hash(config: Mapping[str, Any]) -> str:
    """Hash a cell's config, 12 hexadecimal digits; null, `[]` and `{}` are as if not written.

    Args:
        config: `backbone`, `data`, `technique`, `trainer`, `select_by`, as plain data.
    """
    return _digest(_without_empty(_of_results(config)))


def earlier_hash(config: Mapping[str, Any], params: Collection[str]) -> str:
    """Hash a config as versions did that left nothing out and had fewer arguments.

    Args:
        config: as above.
        params: names of the params that such a version stored of the cell: its arguments, also
            the empty ones.
    """
    return _digest(_known(_of_results(config), params, ""))


def _of_results(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without settings that no result depends on."""
    return {key: {name: part for name, part in value.items()
                  if name not in NO_RESULT and (name, part) != ONE}
            if key == "trainer" else value for key, value in config.items()}


def _digest(config: Mapping[str, Any]) -> str:
    parts = list(config.values())
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def _without_empty(value: Any) -> Any:
    """A value without what is empty in it; `{}` for a mapping that holds nothing else."""
    if isinstance(value, Mapping):
        parts = {key: _without_empty(part) for key, part in value.items()}
        return {key: part for key, part in parts.items() if part not in EMPTY}
    if isinstance(value, list | tuple):
        return [_without_empty(part) for part in value]
    return value


def _known(value: Any, params: Collection[str], path: str) -> Any:
    """A config without the empty arguments of which no param is stored."""
    if not isinstance(value, Mapping):
        return value
    paths = {key: f"{path}.{key}" if path else str(key) for key in value}
    return {key: _known(part, params, paths[key]) for key, part in value.items()
            if _without_empty(part) not in EMPTY or _stored(paths[key], params)}


def _stored(path: str, params: Collection[str]) -> bool:
    name = name_of(path)
    return any(param == name or param.startswith(f"{name}.") for param in params)
