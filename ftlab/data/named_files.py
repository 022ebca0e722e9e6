"""Files that the cells of a table name."""

from __future__ import annotations

import sys
from pathlib import Path

from ftlab.backbones.source import READ
from ftlab.errors import InputError

_WIDEST = 200
"""Characters of a path in a message; longer ones are texts of another column."""


def named_file(cell: str, base: Path, place: str, kind: str) -> Path:
    """The file that a path names, from a folder; written with backslashes too, as on Windows.

    Args:
        cell: the path; `~` is expanded.
        base: the folder that it starts at.
        place: of the cell, for messages.
        kind: of the file, for messages: "image".

    Raises:
        InputError: the file does not exist.
    """
    for written in dict.fromkeys((cell, cell.replace("\\", "/"))):
        try:
            path = base / Path(written).expanduser()
            sys.audit(READ, path)
            if path.is_file():
                return path
        except (OSError, RuntimeError):  # a text too long for a name, or the home of no user
            continue
    shown = str(base / cell)
    shown = shown if len(shown) <= _WIDEST else f"{shown[:_WIDEST]} ..."
    raise InputError(f"{place}: no such {kind} {shown}",
                     "paths start at the table's folder; mend the path")
