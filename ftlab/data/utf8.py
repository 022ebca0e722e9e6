"""Texts from the bytes of files: UTF-8, or the encoding that a data module names.

A stray byte that is not UTF-8 becomes U+FFFD and a note. Where there are more, the file has another
encoding, or is damaged, and is refused: at most one byte may be wrong, or one for every 1,000 rows.
"""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from typing import Any

from ftlab.errors import InputError

ROWS_PER_BYTE = 1000
_SURROGATE = re.compile("[\ud800-\udfff]")
_BYTE = re.compile("[\udc80-\udcff]")  # as the error handler surrogateescape writes it
_MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",  # the longer ones first
          codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def check_encoding(encoding: str | None) -> str | None:
    """The name of an encoding, None for UTF-8.

    Raises:
        ValueError: Python knows no such encoding of texts.
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


def decoded(data: bytes, path: object, encoding: str | None = None) -> str:
    """Text of a file's bytes, without a byte order mark.

    Args:
        data: all of them.
        path: for messages.
        encoding: as `check_encoding` gives it. None reads UTF-8, and makes lone surrogates of bytes
            that are not, which `Cleaner` replaces.

    Raises:
        InputError: the bytes are of another encoding; names it where they tell.
    """
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
        raise InputError(f"{path}, line {line}: {error.reason} in {encoding}",
                         "name the encoding that it was saved in, or save it as UTF-8") from None


def read_whole(path: Path, encoding: str | None = None) -> str:
    """Text of a file of which no byte may be damaged.

    Raises:
        InputError: one is.
    """
    cleaner = Cleaner(spared=0)
    text: str = cleaner(decoded(path.read_bytes(), path, encoding))
    cleaner.notes("files", str(path))
    return text


class Cleaner:
    """Replaces bytes that are not UTF-8, row by row, and judges how many there were.

    Args:
        spared: how many bytes may be wrong in any source.
    """

    def __init__(self, spared: int = 1) -> None:
        self._spared = spared
        self._rows = self._bytes = self._others = 0
        self._damaged: list[str] = []

    def __call__(self, row: Any) -> Any:
        """A text, or texts in lists and tuples, with U+FFFD for each lone surrogate."""
        self._rows += 1
        texts: list[str] = []
        clean = _cleaned(row, texts)
        self._bytes += sum(len(_BYTE.findall(text)) for text in texts)
        if texts:
            self._damaged.append("\n".join(texts))
        return clean

    def notes(self, what: str, source: str) -> list[str]:
        """Tell the user of a stray byte; nothing where there was none.

        Args:
            what: the rows, for instance `texts`.
            source: where they are from.

        Raises:
            InputError: there were more.
        """
        count = len(self._damaged)
        if not count:
            return []
        verb = "is" if count == 1 else "are"
        said = f"{count} of {self._rows} {what} in {source} {verb} not UTF-8"
        limit = max(self._spared, self._spared * self._rows // ROWS_PER_BYTE)
        if self._bytes > limit:
            raise InputError(f"{said} ({self._bytes} bytes)", _mend("\n".join(self._damaged)))
        return [f"{said}; bytes replaced"]


def _cleaned(value: Any, damaged: list[str]) -> Any:
    if isinstance(value, str):
        clean = _SURROGATE.sub("\ufffd", value)
        if clean != value:
            damaged.append(value)
        return clean
    if isinstance(value, list | tuple):
        return type(value)(_cleaned(part, damaged) for part in value)
    return value


def _two_byte(data: bytes) -> str | None:
    """UTF-16 or UTF-32, told by its mark, or by the zeros that ASCII has in it."""
    for mark, name in _MARKS.items():
        if data.startswith(mark):
            return name
    head = data[:4096]
    if head.count(0) * 4 <= len(head):
        return None
    return "utf-16-be" if head[::2].count(0) > head[1::2].count(0) else "utf-16-le"


def _is_utf8(data: bytes, encoding: str) -> bool:
    """Whether bytes beyond ASCII are UTF-8 throughout, which other encodings are not by chance."""
    if data.startswith(codecs.BOM_UTF8):
        return True
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    # a character of two bytes, as Chinese and Japanese have, may look like one of UTF-8
    chance = 0 if len(b"\xc3\xa4".decode(encoding, "replace")) == 2 else 5
    return sum(character > "\x7f" for character in text) > chance


def _mend(texts: str) -> str:
    """Advice from texts with lone surrogates for their wrong bytes."""
    wrong = len(_BYTE.findall(texts))
    if sum(character > "\x7f" for character in texts) > 2 * wrong:
        return "the rest is UTF-8: mend these bytes, or remove what has them"
    if word := _western_word(texts):
        return (f"it looks like Windows-1252, which makes a word of it {word!r}: set encoding: "
                "cp1252, or save it as UTF-8")
    return ("set encoding: to what it was saved in, for instance cp1252, cp1250, cp1251 or "
            "gb18030, or save it as UTF-8")


def _western_word(texts: str) -> str | None:
    """A word with a letter beyond ASCII, where Windows-1252 makes words of all bytes.

    Other alphabets have such letters side by side, and other encodings of this one have some that
    are no letters here.
    """
    try:
        read = texts.encode("utf-8", "surrogateescape").decode("cp1252")
    except UnicodeError:  # five bytes stand for nothing; lone surrogates of JSON have no bytes
        return None
    words = [word for word in re.findall(r"[^\W\d_]+", read) if not word.isascii()]
    inner = re.findall(r"(?<=[A-Za-z])[^\x00-\x7f](?=[A-Za-z])", read)
    letters = sum("\xc0" <= character <= "\xff" or character == "\u2019" for character in inner)
    if re.search(r"[\xc0-\xff]{4}", read) or letters < 0.9 * len(inner):
        return None
    marks = re.findall("[\u2013-\u2026\u20ac\xa3]", read)  # dashes, quotes, dots, euro, pound
    return (words or marks or [None])[0]
