"""Rows of a table: .csv, .tsv, .jsonl and .parquet files."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any
from unicodedata import normalize

from ftlab.data.utf8 import Cleaner, read_decoded
from ftlab.errors import InputError
from ftlab.interchange import Parquet, parse_json
from ftlab.wording import closest

Column = str | int
"""A column by name, or by number (from 0) in a file without header."""

_ROWS_UNASKED, _ROWS_PER_BYTE = 2**20, 8  # of Parquet, where equal cells take no room
EXTENSIONS = (".csv", ".tsv", ".jsonl", ".parquet")


def read_table(path: Path, columns: Sequence[Column],
               optional: Collection[Column] = ()) -> tuple[list[tuple[Any, ...]], int]:
    """The named columns of every row, and how many rows have bytes that are not UTF-8.

    Text stays text ("01", "NA" and "null" are strings); numbers of .jsonl and .parquet stay
    numbers. A stray byte that is not UTF-8 becomes U+FFFD (`ftlab.data.utf8`).
    A .csv is comma-separated unless its first row has no comma: then by semicolon, tab or runs of
    spaces, whichever is first found there. A .tsv has no quoting. Blank lines are not rows.

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

    The second of two columns of one name has a number behind it.

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
            header = _parquet_file(path).names
    columns: list[Any] = list(range(len(header)))
    names = [str(number) for number in columns] if by_number else _distinct(header)
    if path.suffix.lower() == ".jsonl":
        columns = names = list(dict.fromkeys(header))
    rows, _ = read_table(path, columns, columns)
    if path.suffix.lower() in (".csv", ".tsv") and not by_number:
        del rows[0]
    return {name: list(cells) for name, cells in zip(names, zip(*rows, strict=True), strict=True)}


def _distinct(header: Sequence[str]) -> list[str]:
    """Names of columns, each once."""
    names: list[str] = []
    for column in header:
        name = clean = Cleaner()(column)
        number = 1
        while name in names:
            number += 1
            name = f"{clean} ({number})"
        names.append(name)
    return names


def _pick_delimited(path: Path, columns: Sequence[Column],
                    optional: Collection[Column]) -> list[tuple[Any, ...]]:
    rows = [row for row in _delimited_rows(path) if row]
    by_number = isinstance(columns[0], int)
    if not rows or (len(rows) == 1 and not by_number):
        raise InputError(f"{path} has no rows", "give a file with examples")
    first: Sequence[str] = rows[0]
    header: Sequence[Column] = range(len(first)) if by_number else rows.pop(0)
    places = [_place(column, header, path, optional, names=first) for column in columns]
    for number, row in enumerate(rows, 1):
        if len(row) != len(header):
            raise InputError(f"{path.name}, row {number}: {len(row)} fields instead of "
                             f"{len(header)}", "mend the row (a delimiter within a field?)")
    return [tuple(None if place is None else row[place] for place in places) for row in rows]


def _delimited_rows(path: Path) -> list[list[str]]:
    text = read_decoded(path)
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
                         f"give the columns by name; a name of digits is quoted: '{columns[0]}'")
    for number, row in _json_rows(path):
        keys = list(row)
        places = [_place(column, keys, path, optional, f", row {number}") for column in columns]
        yield tuple(None if place is None else row[keys[place]] for place in places)


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a .jsonl file with their numbers from 1."""
    lines = [line for line in read_decoded(path).split("\n") if line.strip()]
    if not lines:
        raise InputError(f"{path} has no rows", "give a file with examples")
    for number, line in enumerate(lines, 1):
        row = parse_json(line, f"{path.name}, row {number}", "write one JSON object a line")
        if not isinstance(row, dict):
            raise InputError(f"{path.name}, row {number}: not a JSON object",
                             "write one JSON object a line")
        yield number, row


def _pick_parquet(path: Path, columns: Sequence[Column],
                  optional: Collection[Column]) -> list[tuple[Any, ...]]:
    file = _parquet_file(path)
    names = file.names
    header: Sequence[Column] = range(len(names)) if isinstance(columns[0], int) else names
    places = [_place(column, header, path, optional, names=names) for column in columns]
    wanted = sorted({place for place in places if place is not None})
    cells = file.columns(wanted)
    nothing = [None] * file.rows
    return list(zip(*(nothing if place is None else cells[place] for place in places),
                    strict=True))


def _parquet_file(path: Path) -> Parquet:
    file = Parquet(path, path, "write it again as Parquet")
    if not file.rows:
        raise InputError(f"{path} has no rows", "give a file with examples")
    size = path.stat().st_size
    if file.rows > max(_ROWS_UNASKED, _ROWS_PER_BYTE * size):
        raise InputError(f"{path} is malformed: it announces {file.rows:,} rows in {size:,} bytes",
                         "write it again as Parquet")
    return file


def _place(column: Column, header: Sequence[Column], path: Path, optional: Collection[Column],
           place: str = "", names: Sequence[str] = ()) -> int | None:
    """Where a row has a column; None where it has none and need not.

    Args:
        column: wanted.
        header: names of the columns, or their numbers.
        path: for messages.
        optional: columns that may be lacking.
        place: of the row, for messages.
        names: of the columns, where they may have some and are wanted by number.
    """
    if [*header].count(column) == 1:
        return header.index(column)
    same = [number for number, name in enumerate(header) if name == column or (
        isinstance(column, str) and normalize("NFC", str(name)) == normalize("NFC", column))]
    if len(same) > 1:
        raise InputError(f"{path.name}{place} has {len(same)} columns {column!r}",
                         "rename or remove all but one of them")
    if not same and column not in optional:
        raise _no_column(column, header, path, place, names)
    return same[0] if same else None


def _no_column(column: Column, header: Sequence[Column], path: Path, place: str,
               called: Sequence[str]) -> InputError:
    if isinstance(column, int):
        quote = f"; quote the name of a column: '{column}'" if str(column) in called else ""
        return InputError(f"{path.name}{place} has no column {column}",
                          f"its columns are 0 to {len(header) - 1}{quote}")
    names = [_short(Cleaner()(str(name))) for name in header]
    close = closest(column, names)
    guess = f"did you mean {close[0]!r}? " if close else ""
    hint = "" if path.suffix in (".jsonl", ".parquet") else "; without header, name them 0, 1, ..."
    return InputError(f"{path.name}{place} has no column {column!r}",
                      f"{guess}it has: {', '.join(names)}{hint}")


def _short(name: str) -> str:
    return name if len(name) <= 40 else name[:37] + "..."
