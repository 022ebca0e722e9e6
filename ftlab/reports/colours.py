"""Which colour a technique has: the same one in every figure of a study."""

from __future__ import annotations

from collections.abc import Iterable

from ftlab.tracking.palette import COLOURS

_LINES = ("-", "--", ":")


def styles(techniques: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and line style of each technique, by its place in the study.

    Args:
        techniques: in the study's order; one that stands twice keeps its first place. After ten
            the colours come again with another line.
    """
    names = list(dict.fromkeys(techniques))
    return {
        name: (COLOURS[n % len(COLOURS)], _LINES[n // len(COLOURS) % len(_LINES)])
        for n, name in enumerate(names)
    }
