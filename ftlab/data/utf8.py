"""Bytes that are not UTF-8: each becomes U+FFFD, and the user is told of how many rows."""

from __future__ import annotations

import re
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff]")


def decoded(data: bytes) -> str:
    """Text of bytes, without a byte order mark; bytes that are not UTF-8 as lone surrogates."""
    return data.decode("utf-8-sig", errors="surrogateescape")


def cleaned(value: Any) -> Any:
    """A text, or texts in lists and tuples, with U+FFFD for each lone surrogate."""
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list | tuple):
        return type(value)(cleaned(each) for each in value)
    return value


def note_replaced(count: int, total: int, what: str, source: str) -> list[str]:
    """What to tell the user of replaced bytes; nothing where there were none."""
    verb = "is" if count == 1 else "are"
    return [f"{count} of {total} {what} in {source} {verb} not UTF-8; bytes replaced"
            ] if count else []
