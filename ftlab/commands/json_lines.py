"""`--json`: what a command has to say as JSON objects, a line each, with nothing else on stdout."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

from ftlab.errors import FtlabError
from ftlab.redaction import redact

_lines: list[TextIO] = []
"""The process's stdout, while it is for JSON alone."""


@contextmanager
def alone_on_stdout(wanted: bool) -> Iterator[None]:
    """Keep stdout for `emit`; what else is printed there, by C libraries and processes too, goes to stderr.

    Args:
        wanted: without it nothing changes, and `emit` does nothing.
    """
    if not wanted:
        yield
        return
    sys.stdout.flush()
    stdout = os.dup(1)
    os.dup2(2, 1)
    _lines.append(os.fdopen(os.dup(stdout), "w", encoding="utf-8"))
    try:
        yield
    finally:
        sys.stdout.flush()
        _lines.pop().close()
        os.dup2(stdout, 1)
        os.close(stdout)


def for_programs() -> bool:
    """Return whether a program reads this process, so that prose is left out."""
    return bool(_lines)


def emit(said: Mapping[str, Any]) -> None:
    """Write one object where JSON is wanted: numbers in full, what is not finite as null."""
    if _lines:
        _lines[-1].write(json.dumps(plain(said), ensure_ascii=False, allow_nan=False) + "\n")
        _lines[-1].flush()


def error_of(error: FtlabError) -> dict[str, str | None]:
    """An error in its parts: what is wrong, how to mend it, and where; null for what is not known."""
    return {"what": error.problem, "how": error.mend or None, "place": error.place or None}


def plain(value: Any) -> Any:
    """A value as JSON has it: texts without passwords, tuples as lists, paths as texts."""
    if isinstance(value, Mapping):
        return {plain(str(key)): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(part) for part in value]
    if hasattr(value, "tolist"):  # numpy's
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    # halves of characters, which names of files may have, cannot be written
    return redact(str(value)).encode("utf-8", "backslashreplace").decode()
