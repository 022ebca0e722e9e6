"""Prompts and responses filled in from the columns of a table, or texts from files."""

from __future__ import annotations

import numbers
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from string import Formatter

from ftlab.backbones.source import resolve_path
from ftlab.data import hub
from ftlab.data.examples import SplitName
from ftlab.data.folder_files import check_files
from ftlab.data.tables import Column, read_table
from ftlab.data.utf8 import Cleaner, note_replaced, read_decoded
from ftlab.errors import InputError
from ftlab.tasks.class_names import is_blank, is_missing, number_name

TEXT_FILES = (".txt", ".text", ".md")
_PARAGRAPHS = re.compile(r"\n[ \t]*\n\s*")


class Template:
    """Literal text with columns in braces: "Review: {text}"; {0} is a column by number.

    A brace of the text itself is doubled, as in Python.

    Args:
        template: with at least one column.
        name: of the argument, for messages.

    Raises:
        ValueError: no column, or more than a name within braces.
    """

    def __init__(self, template: str, name: str) -> None:
        try:
            parsed = list(Formatter().parse(template))
        except ValueError as error:
            raise ValueError(f"{name} must be a text with columns in braces ({error}), got "
                             f"{template!r}") from None
        if any(spec or conversion for _, _, spec, conversion in parsed):
            raise ValueError(f"{name} must have column names alone in its braces, got {template!r}")
        self.text = template
        self._parts = [(literal, field) for literal, field, _, _ in parsed]
        self.columns: list[Column] = [_column(field) for _, field in self._parts
                                      if field is not None]
        if not self.columns or "" in self.columns:
            raise ValueError(f"{name} must name a column in braces, got {template!r}")

    def fill(self, cells: Mapping[Column, str]) -> str:
        """The text for one row."""
        return "".join(literal + ("" if field is None else cells[_column(field)])
                       for literal, field in self._parts)


def _column(field: str) -> Column:
    return int(field) if field.isdigit() else field


def read_cells(source: str, split: SplitName, columns: Sequence[Column],
               optional: Collection[Column] = (),
               ) -> tuple[list[str], list[dict[Column, str]], list[str]]:
    """Ids, the named columns of each row as text, and notes on them for users.

    Args:
        source: a table (`package:NAME/PATH` and `hf:NAME[:CONFIG[:SPLIT]]` too); or a text file
            or a folder of text files, whose paragraphs (blank lines between them) are rows of the
            one column `text`.
        split: which one it is wanted for; chooses within a hub's data set.
        columns: by name, or by number in a file without header.
        optional: those that a row may lack; it has no cell then.

    Raises:
        InputError: with the place and the mend.
    """
    columns = list(dict.fromkeys(columns))
    if source.startswith(hub.PREFIX):
        stem, rows = hub.read_hub(source, split, columns, optional)
        replaced = 0
    else:
        path = resolve_path(source)
        if path.is_dir() or path.suffix.lower() in TEXT_FILES:
            return _paragraphs(path, source, columns)
        stem = path.stem
        rows, replaced = read_table(path, columns, optional)
    ids = [f"{stem}:{number}" for number in range(1, len(rows) + 1)]
    cells = [{column: _text(value, f"{source}, row {number}", column)
              for column, value in zip(columns, row, strict=True)
              if column not in optional or not is_blank(value)}
             for number, row in enumerate(rows, 1)]
    return ids, cells, note_replaced(replaced, len(rows), "rows", source)


def _paragraphs(path: Path, source: str, columns: Sequence[Column],
                ) -> tuple[list[str], list[dict[Column, str]], list[str]]:
    if list(columns) != ["text"]:
        raise InputError(f"{source}: text files have the one column text, not "
                         f"{', '.join(map(repr, columns))}",
                         'set prompt: null and response: "{text}", or give a table')
    files = [path] if path.is_file() else sorted(
        file for file in path.rglob("*")
        if file.suffix.lower() in TEXT_FILES and file.is_file())
    check_files(files, path)
    ids: list[str] = []
    cells: list[dict[Column, str]] = []
    cleaner = Cleaner()
    for file in files:
        name = file.stem if file == path else file.relative_to(path).as_posix()
        whole = re.sub("\r\n?", "\n", read_decoded(file))
        texts = [text.strip() for text in _PARAGRAPHS.split(whole) if text.strip()]
        ids += [f"{name}:{number}" for number in range(1, len(texts) + 1)]
        cells += [{"text": cleaner(text, file)} for text in texts]
    if not cells:
        raise InputError(f"{source} has no text", f"give {', '.join(TEXT_FILES)} files with text")
    replaced = cleaner.replaced("paragraphs", source)
    return ids, cells, note_replaced(replaced, len(cells), "paragraphs", source)


def _text(value: object, place: str, column: Column) -> str:
    """A cell as the model reads it; a number as its shortest decimal, whatever the kind of file."""
    if is_missing(value):
        raise InputError(f"{place}: column {column!r} has no text in it, but a missing value",
                         "fill it in or remove the row")
    if isinstance(value, numbers.Number) and not isinstance(value, bool):
        return number_name(value)
    if not isinstance(value, str):
        raise InputError(f"{place}: column {column!r} is of type {type(value).__name__}, not a "
                         "text or a number", "write it as the text that the model shall read")
    if not value.strip():
        raise InputError(f"{place}: column {column!r} is empty", "fill it in or remove the row")
    return value
