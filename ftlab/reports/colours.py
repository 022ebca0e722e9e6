"""Which colour a technique has: the same one in every figure of a study."""

from __future__ import annotations

from collections.abc import Iterable

# Ten colours that people with any kind of colour vision tell apart, in this order.
# Petroff (2021), "Accessible color sequences for data visualization",
# https://arxiv.org/abs/2107.02270
COLOURS = ("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
           "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd")
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
