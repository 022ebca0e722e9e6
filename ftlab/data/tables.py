"""Rows of a table: .csv, .tsv, .jsonl and .parquet files."""

from __future__ import annotations

import csv
import difflib
import io
import json
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from ftlab.data.utf8 import Cleaner, decoded
from ftlab.errors import InputError

Column = str | int
"""A column by name, or by number (from 0) in a file without header."""

EXTENSIONS = (".csv", ".tsv", ".jsonl", ".parquet")


def read_table(path: Path, columns: Sequence[Column],
               optional: Collection[Column] = ()) -> tuple[list[tuple[Any, ...]], int]:
    """The named columns of every row, and how many rows have bytes that are not UTF-8.

    Text stays text ("01", "NA" and "null" are strings); numbers of .jsonl and .parquet stay
    numbers. A stray byte that is not UTF-8 becomes U+FFFD (`ftlab.data.utf8`).
    A .csv is comma-separated unless its first row has no comma: then by semicolon, tab or runs of
    spaces, whichever is first found there. A .tsv knows no quoting. Blank lines are no rows.

    Args:
        path: the file.
        columns: all by name, or all by number where the file has no header.
        optional: those that may be lacking; their cells are None then.

    Raises:
        InputError: unknown extension, empty file, missing column, ragged or malformed row, or
            bytes of another encoding.
    """
    if len({type(column) for column in columns}) > 1:
        raise InputError(f"{path.name}: columns {', '.join(map(repr, columns[:-1]))} and "
                         f"{columns[-1]!r} mix name and number",
                         "give all by name, or all by number (no header)")
    match path.suffix.lower():
        case ".csv" | ".tsv":
            rows = _pick_delimited(path, columns, optional)
        case ".jsonl":
            rows = list(_pick_json(path, columns, optional))
        case ".parquet":
            rows = _pick_parquet(path, columns, optional)
        case other:
            raise InputError(f"{path}: unknown kind of file {other!r}",
                             f"use {', '.join(EXTENSIONS)} or a folder of class folders")
    cleaner = Cleaner()
    return [cleaner(row) for row in rows], cleaner.replaced("rows", path)


def all_columns(path: Path, by_number: bool) -> dict[str, list[Any]]:
    """Every column of a table, by name, or by number in a file without header; None for a gap.

    Raises:
        InputError: as in `read_table`.
    """
    header: list[Any]
    match path.suffix.lower():
        case ".csv" | ".tsv":
            header = next((row for row in _delimited_rows(path) if row), [])
        case ".jsonl":
            header = [key for _, row in _json_rows(path) for key in row]
        case _:
            header = _parquet_file(path).schema_arrow.names
    columns = list(range(len(header))) if by_number else list(dict.fromkeys(header))
    rows, _ = read_table(path, columns, columns)
    return {str(column): list(cells)
            for column, cells in zip(columns, zip(*rows, strict=True), strict=True)}


def _pick_delimited(path: Path, columns: Sequence[Column],
                    optional: Collection[Column]) -> list[tuple[Any, ...]]:
    rows = [row for row in _delimited_rows(path) if row]
    by_number = isinstance(columns[0], int)
    if not rows or (len(rows) == 1 and not by_number):
        raise InputError(f"{path} has no rows", "give a file with examples")
    header: Sequence[Column] = range(len(rows[0])) if by_number else rows.pop(0)
    places = [_place(column, header, path, optional) for column in columns]
    for number, row in enumerate(rows, 1):
        if len(row) != len(header):
            raise InputError(f"{path.name}, row {number}: {len(row)} fields instead of "
                             f"{len(header)}", "mend the row (a delimiter within a field?)")
    return [tuple(None if place is None else row[place] for place in places) for row in rows]


def _delimited_rows(path: Path) -> list[list[str]]:
    text = _decoded(path)
    csv.field_size_limit(sys.maxsize)  # the default refuses texts above 131,072 characters
    try:
        if path.suffix.lower() == ".tsv":
            lines = io.StringIO(text, newline="")
            return list(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
        first = next(csv.reader(io.StringIO(text, newline="")), [])
        if len(first) == 1:
            delimiter = next((mark for mark in ";\t" if mark in first[0]), None)
            if delimiter is None and " " in first[0]:
                return [line.split() for line in text.split("\n")]
        else:
            delimiter = ","
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter or ","))
    except csv.Error as error:
        raise InputError(f"{path} is malformed: {error}", "mend its quoting") from None


def _pick_json(path: Path, columns: Sequence[Column],
               optional: Collection[Column]) -> Iterator[tuple[Any, ...]]:
    if isinstance(columns[0], int):
        raise InputError(f"{path.name}: .jsonl has no column {columns[0]}",
                         "give the columns by name")
    for number, row in _json_rows(path):
        keys = list(row)
        places = [_place(column, keys, path, optional, f", row {number}") for column in columns]
        yield tuple(None if place is None else row[keys[place]] for place in places)


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a .jsonl file with their numbers from 1."""
    lines = [line for line in _decoded(path).split("\n") if line.strip()]
    if not lines:
        raise InputError(f"{path} has no rows", "give a file with examples")
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path.name}, row {number}: not JSON ({error})",
                             "write one JSON object a line") from None
        if not isinstance(row, dict):
            raise InputError(f"{path.name}, row {number}: not a JSON object",
                             "write one JSON object a line")
        yield number, row


def _pick_parquet(path: Path, columns: Sequence[Column],
                  optional: Collection[Column]) -> list[tuple[Any, ...]]:
    file = _parquet_file(path)
    names = file.schema_arrow.names
    header: Sequence[Column] = range(len(names)) if isinstance(columns[0], int) else names
    chosen = [None if place is None else names[place]
              for place in (_place(column, header, path, optional) for column in columns)]
    table = file.read(columns=sorted({name for name in chosen if name is not None}))
    nothing = [None] * file.metadata.num_rows
    return list(zip(*(nothing if name is None else table.column(name).to_pylist()
                      for name in chosen), strict=True))


def _parquet_file(path: Path) -> Any:
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise InputError(f"{path} is malformed: {error}", "write it again as Parquet") from None
    if not file.metadata.num_rows:
        raise InputError(f"{path} has no rows", "give a file with examples")
    return file


def _decoded(path: Path) -> str:
    return decoded(path.read_bytes(), path)


def _place(column: Column, header: Sequence[Column], path: Path, optional: Collection[Column],
           place: str = "") -> int | None:
    """Where a row has a column; None where it has none and need not."""
    lacking = column in optional and column not in header
    return None if lacking else _find(column, header, path, place)


def _find(column: Column, header: Sequence[Column], path: Path, place: str = "") -> int:
    if column in header:
        return header.index(column)
    if isinstance(column, int):
        raise InputError(f"{path.name}{place} has no column {column}",
                         f"its columns are 0 to {len(header) - 1}")
    names = [_short(Cleaner()(str(name))) for name in header]
    close = difflib.get_close_matches(column, names, n=1)
    guess = f"did you mean {close[0]!r}? " if close else ""
    hint = "" if path.suffix in (".jsonl", ".parquet") else "; without header, name them 0, 1, ..."
    raise InputError(f"{path.name}{place} has no column {column!r}",
                     f"{guess}it has: {', '.join(names)}{hint}")


def _short(name: str) -> str:
    return name if len(name) <= 40 else name[:37] + "..."
