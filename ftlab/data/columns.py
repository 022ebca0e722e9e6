"""Columns of a source beside texts and labels: the group, domain or client of each example."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ftlab.backbones.source import resolve_path
from ftlab.data import hub
from ftlab.data.examples import SplitName
from ftlab.data.tables import EXTENSIONS, Column, read_table
from ftlab.errors import InputError
from ftlab.tasks.class_names import class_name, is_blank


def values_of(source: str, split: SplitName, column: Column, ids: Sequence[str],
              beside: Column | None = None) -> list[str]:
    """The value of each example, as text.

    Args:
        source: of the examples.
        split: that they are of; chooses within a hub's data set.
        column: of a table or a hub's data set, by name or number. Of anything else a regular
            expression, searched for in the example's id (a file's path from its folder), whose one
            group is the value.
        ids: of the examples; those of a table end in their row's number.
        beside: a column that the examples were read by, by name or by number as `column` must be.

    Raises:
        InputError: no such column, an id that does not fit, or an empty cell.
    """
    if source.startswith(hub.PREFIX):
        _, rows = hub.read_hub(source, split, (column, column if beside is None else beside))
    elif (path := resolve_path(source)).suffix.lower() in EXTENSIONS:
        rows, _ = read_table(path, (column,) if beside is None else (column, beside))
    else:
        return [_matched(_pattern(column, source), name, source) for name in ids]
    return [_cell(rows, name, column, source) for name in ids]


def _cell(rows: Sequence[tuple[Any, ...]], name: str, column: Column, source: str) -> str:
    number = int(name.rpartition(":")[2])
    value = rows[number - 1][0]
    where = f"{source}, row {number}: column {column!r}"
    if is_blank(value):
        raise InputError(f"{where} is empty", "fill it in or remove the example")
    return class_name(value, where)


def _pattern(column: Column, source: str) -> re.Pattern[str]:
    mend = "give a regular expression of the files' paths with one group, for instance '_(\\w+)_'"
    if isinstance(column, int):
        raise InputError(f"columns: {source} is not a table and has no column {column}", mend)
    try:
        pattern = re.compile(column)
    except re.error as error:
        raise InputError(f"columns: {column!r} is not a regular expression: {error}", mend) from None
    if pattern.groups != 1:
        raise InputError(f"columns: {source} is not a table, and the regular expression {column!r} "
                         f"has {pattern.groups} groups", mend)
    return pattern


def _matched(pattern: re.Pattern[str], name: str, source: str) -> str:
    match = pattern.search(name)
    if match is None or not match[1]:
        raise InputError(f"{source}, {name}: does not fit columns: {pattern.pattern!r}",
                         "mend the regular expression, or rename or remove the file")
    return match[1]
