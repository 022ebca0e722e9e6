"""How a technique looks: the same colour, line and marker in every figure of a study."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from ftlab.tracking.palette import COLOURS

Line = Literal["-", "--", "-.", ":"]
LINES: tuple[Line, ...] = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


class Style(NamedTuple):
    """Colour, line and marker as matplotlib names them; each alone separates neighbours."""

    colour: str
    line: Line
    marker: str


def styles(techniques: Iterable[str]) -> dict[str, Style]:
    """How each technique looks, by its place in the study.

    Args:
        techniques: in the study's order; one that stands twice keeps its first place. After ten
            the colours come again with another line and marker; after 40 the lines too.
    """
    names = list(dict.fromkeys(techniques))
    looks = {}
    for n, name in enumerate(names):
        turn = n + n // len(COLOURS)  # so that a colour's second user has another line and marker
        looks[name] = Style(COLOURS[n % len(COLOURS)], LINES[turn % len(LINES)],
                            MARKERS[turn % len(MARKERS)])
    return looks
