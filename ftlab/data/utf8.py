"""Texts from the bytes of files: UTF-8, or the encoding that a data module names.

A stray byte that is not UTF-8 becomes U+FFFD and a note. Where there are more, the file has another
encoding, or is damaged, and is refused: at most one byte may be wrong, or one for every 1,000 rows.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from ftlab.errors import InputError
from ftlab.interchange import read_bytes

ROWS_PER_BYTE = 1000
_ENCODING: ContextVar[str | None] = ContextVar("encoding", default=None)
_SURROGATE = re.compile("[\ud800-\udfff]")
_BYTE = re.compile("[\udc80-\udcff]")  # as the error handler surrogateescape writes it
_MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",  # the longer ones first
          codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def check_encoding(encoding: str | None) -> str | None:
    """The name of an encoding, None for UTF-8.

    Raises:
        ValueError: Python has no such encoding of texts.
    """
    if encoding is None:
        return None
    try:
        "a".encode(encoding)  # also refuses codecs of bytes, as base64
    except (LookupError, ValueError):
        raise ValueError("encoding must be a name that Python knows, for instance cp1252, utf-16 "
                         f"or gb18030, got {encoding!r}") from None
    name = codecs.lookup(encoding).name
    return None if name in ("utf-8", "utf-8-sig") else name


@contextmanager
def reading(encoding: str | None) -> Iterator[None]:
    """Read all texts meanwhile in a data module's encoding, as `check_encoding` gives it."""
    token = _ENCODING.set(encoding)
    try:
        yield
    finally:
        _ENCODING.reset(token)


def decoded(data: bytes, path: object) -> str:
    """Text of a file's bytes, without a byte order mark.

    Of UTF-8, bytes that are none come as lone surrogates, which `Cleaner` replaces.

    Args:
        data: all of them.
        path: for messages.

    Raises:
        InputError: the bytes are of another encoding; names it where they show it.
    """
    encoding = _ENCODING.get()
    if encoding is None:
        if other := _two_byte(data):
            raise InputError(f"{path} is {other.upper()}, not UTF-8",
                             f"set encoding: {other}, or save it as UTF-8")
        return data.decode("utf-8-sig", errors="surrogateescape")
    if _is_utf8(data, encoding):
        raise InputError(f"{path} is UTF-8, where encoding says {encoding}",
                         f"save it as {encoding}, or all of them as UTF-8 and leave encoding out")
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data[:error.start].count(b"\n") + 1
        raise InputError(f"{path}, line {line}: not {encoding} ({error.reason})",
                         "name the encoding that it was saved in, or save it as UTF-8") from None


def read_decoded(path: Path) -> str:
    """Text of a file, as `decoded` gives it.

    Raises:
        InputError: it is a folder, cannot be read, or is of another encoding.
    """
    return decoded(read_bytes(path), path)


def read_whole(path: Path) -> str:
    """Text of a file of which no byte may be damaged.

    Raises:
        InputError: one is.
    """
    cleaner = Cleaner(spared=0)
    text: str = cleaner(read_decoded(path), path)
    cleaner.replaced("files", path)
    return text


def check_names(paths: Iterable[Path], root: Path) -> None:
    """Refuse files and folders whose names are not UTF-8: they are ids and classes.

    Args:
        paths: of files.
        root: from which on names count.

    Raises:
        InputError: names the first.
    """
    wrong = [path for path in paths if _SURROGATE.search(str(path.relative_to(root)))]
    if wrong:
        shown = _SURROGATE.sub("\ufffd", str(wrong[0]))
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise InputError(f"{shown}: its name is not UTF-8{more}",
                         "rename it, or all of them: convmv -f cp1252 -t utf8 -r --notest FOLDER")


class Cleaner:
    """Replaces bytes that are not UTF-8, row by row, and judges how many there were.

    Args:
        spared: how many bytes may be wrong in any source.

    Attributes:
        rows: how many it has seen.
    """

    def __init__(self, spared: int = 1) -> None:
        self.rows = 0
        self._spared = spared
        self._replaced = self._bytes = self._sound = 0
        self._damaged: list[str] = []
        self._first: object = None

    def __call__(self, row: Any, place: object = None) -> Any:
        """A text, or texts in lists, tuples and mappings, with U+FFFD for each lone surrogate.

        Args:
            row: of a table, or what stands for one.
            place: for messages; the row's number unless said.
        """
        self.rows += 1
        before = len(self._damaged)
        clean = self._cleaned(row)
        if len(self._damaged) > before:
            self._first = self._first or place or f"number {self.rows}"
            self._replaced += 1
        return clean

    def _cleaned(self, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(self._cleaned(part) for part in value)
        if isinstance(value, dict):
            return {self._cleaned(key): self._cleaned(part) for key, part in value.items()}
        if not isinstance(value, str) or value.isascii():
            return value
        clean = _SURROGATE.sub("\ufffd", value)
        self._sound += clean == value
        if clean != value:
            self._damaged.append(value)
            self._bytes += len(_BYTE.findall(value))
        return clean

    def replaced(self, what: str, source: object) -> int:
        """In how many rows bytes were replaced.

        Args:
            what: the rows, for instance `texts`.
            source: where they are from.

        Raises:
            InputError: more bytes than a source may have.
        """
        limit = max(self._spared, self._spared * self.rows // ROWS_PER_BYTE)
        if self._bytes > limit:
            subject = "it is" if self.rows == 1 else f"{self._replaced} of {self.rows} {what} are"
            first = f", {self._first} first" if self._first != source else ""
            raise InputError(f"{source}: {subject} not UTF-8 ({self._bytes} bytes{first})",
                             self._mend())
        return self._replaced

    def _mend(self) -> str:
        if self._sound >= len(self._damaged):
            return "other texts are UTF-8: mend these, or remove them"
        if word := _western_word("\n".join(self._damaged)):
            return (f"it looks like Windows-1252, as which it reads {word!r}: set encoding: "
                    "cp1252, or save it as UTF-8")
        return ("set encoding: to what it was saved in, for instance cp1252, cp1250, cp1251 or "
                "gb18030, or save it as UTF-8")


def note_replaced(count: int, total: int, what: str, source: str) -> list[str]:
    """One note on replaced bytes; nothing where there were none."""
    verb = "is" if count == 1 else "are"
    return [f"{count} of {total} {what} in {source} {verb} not UTF-8; bytes replaced"
            ] if count else []


def _two_byte(data: bytes) -> str | None:
    """UTF-16 or UTF-32, recognised by its mark, or by the zeros that ASCII has in it."""
    for mark, name in _MARKS.items():
        if data.startswith(mark):
            return name
    head = data[:4096]
    if head.count(0) * 4 <= len(head):
        return None
    return "utf-16-be" if head[::2].count(0) > head[1::2].count(0) else "utf-16-le"


def _is_utf8(data: bytes, encoding: str) -> bool:
    """Return whether all bytes beyond ASCII are UTF-8, as no other encoding is by chance."""
    if data.startswith(codecs.BOM_UTF8):
        return True
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    # a character of two bytes, as Chinese and Japanese have, may look like one of UTF-8
    chance = 0 if len(b"\xc3\xa4".decode(encoding, "replace")) == 2 else 5
    return sum(character > "\x7f" for character in text) > chance


def _western_word(texts: str) -> str | None:
    """A word with a letter beyond ASCII, where Windows-1252 makes words of all bytes.

    Other alphabets have such letters side by side, and other encodings of this one have some that
    are no letters here.
    """
    data = texts.encode("utf-8", "surrogateescape")
    runs = [len(run) for run in re.findall(rb"[\x80-\xff]+", data)]
    if sum(length for length in runs if length > 3) > 0.2 * sum(runs):
        return None
    try:
        read = data.decode("cp1252")
    except UnicodeDecodeError:  # five bytes stand for nothing
        return None
    words = [word for word in re.findall(r"[^\W\d_]+", read) if not word.isascii()]
    inner = re.findall(r"(?<=[A-Za-z])[^\x00-\x7f](?=[A-Za-z])", read)
    letters = sum("\xc0" <= character <= "\xff" or character == "\u2019" for character in inner)
    if letters < 0.9 * len(inner):
        return None
    marks = re.findall("[\u2013-\u2026\u20ac\xa3]", read)  # dashes, quotes, dots, euro, pound
    return (words or marks or [None])[0]
