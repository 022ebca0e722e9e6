"""Names of a sweep's searches, by which storage and store keep them apart."""

from __future__ import annotations

import re

_FURTHER = re.compile(r"(.+)\.search-([0-9]+)")


def search_name(sweep: str, search: int) -> str:
    """The name of a search; the first, 0, has the sweep's."""
    return f"{sweep}.search-{search + 1}" if search else sweep


def search_of(name: str) -> tuple[str, int]:
    """The sweep of a search's name, and which search it is; 0 is the first."""
    found = _FURTHER.fullmatch(name)
    return (found[1], int(found[2]) - 1) if found else (name, 0)
