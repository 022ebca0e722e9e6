"""Formats that several rooms read, each at one place: what their readers raise is an `InputError`.

JSON, with which tables, annotations and models' folders come, and Parquet.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ftlab.errors import InputError

DEEPEST = 100
"""Levels of lists and objects within each other; what is done with them is done by recursion."""


def read_bytes(path: Path, mend: str = "check the path and its permissions",
               most: int | None = None) -> bytes:
    """All bytes of a file.

    Args:
        path: of the file.
        mend: for messages.
        most: bytes that such a file may have.

    Raises:
        InputError: it is a folder, cannot be read, or is larger than what is meant by it.
    """
    try:
        if most is not None and (size := path.stat().st_size) > most:
            raise InputError(f"{path}: {size // 2**20} MiB, and such a file has at most "
                             f"{most // 2**20}", mend)
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", mend) from error


def parse_json(text: str | bytes, place: object, mend: str) -> Any:
    """The value that a text is in JSON.

    Args:
        text: all of it; bytes are UTF-8.
        place: for messages.
        mend: likewise.

    Raises:
        InputError: it is not JSON, or nested deeper than anything that is meant.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{place}: not JSON ({error})", mend) from None
    except UnicodeDecodeError as error:
        raise InputError(f"{place}: not JSON (not UTF-8: byte {error.start})", mend) from None
    except ValueError:  # more digits than Python turns into a number
        raise InputError(f"{place}: not JSON (a number of thousands of digits)", mend) from None
    except RecursionError:
        raise InputError(f"{place}: more than {DEEPEST} levels deep", mend) from None
    opened = (text.count(b"[") + text.count(b"{") if isinstance(text, bytes)
              else text.count("[") + text.count("{"))
    if opened > DEEPEST:
        _check_depth(value, place, mend)
    return value


def _check_depth(value: Any, place: object, mend: str) -> None:
    level = [value]
    for _ in range(DEEPEST):
        level = [part for inner in level if isinstance(inner, list | dict)
                 for part in (inner.values() if isinstance(inner, dict) else inner)]
        if not level:
            return
    raise InputError(f"{place}: more than {DEEPEST} levels deep", mend)


class Parquet:
    """A Parquet file's columns, of which those that are asked for are read.

    Args:
        source: the file, or its bytes.
        place: for messages.
        mend: likewise.

    Attributes:
        names: of the columns.
        rows: as many as the file says that it has.

    Raises:
        InputError: it is damaged, or not Parquet.
    """

    def __init__(self, source: Path | bytes, place: object, mend: str) -> None:
        from pyarrow import parquet

        self._place, self._mend = place, mend
        with self._reading():
            self._file = parquet.ParquetFile(
                io.BytesIO(source) if isinstance(source, bytes) else source)
            self.names: list[str] = self._file.schema_arrow.names
            self.rows: int = self._file.metadata.num_rows

    def columns(self, places: Sequence[int]) -> dict[int, list[Any]]:
        """The cells of the columns with these numbers.

        Raises:
            InputError: a page of one is damaged.
        """
        twice = len(set(self.names)) < len(self.names)  # all are read then: its reader goes by name
        wanted = None if twice else [self.names[place] for place in places]
        with self._reading():
            table = self._file.read(columns=wanted)
            cells = {place: table.column(place if twice else self.names[place]).to_pylist()
                     for place in places}
        if any(len(column) != self.rows for column in cells.values()):
            raise InputError(f"{self._place} is malformed: a column has not {self.rows} rows, as "
                             "the file has", self._mend)
        return cells

    def to_pydict(self) -> dict[str, list[Any]]:
        """All columns by name."""
        cells = self.columns(range(len(self.names)))
        return {name: cells[place] for place, name in enumerate(self.names)}

    @contextmanager
    def _reading(self) -> Iterator[None]:
        import pyarrow

        try:
            yield
        # beside Arrow's own: of the file; of texts that are not UTF-8 and dates beyond Python's;
        # of a page that says it is larger than the memory
        except (pyarrow.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise InputError(f"{self._place} is malformed: {reason}", self._mend) from None
