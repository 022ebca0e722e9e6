"""Words of messages: the closest of several names, and names in a row."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any


def closest(word: Any, choices: Sequence[str], count: int = 1, cutoff: float = 0.6) -> list[str]:
    """Choices that look like a word, the likeliest first; capitals make no difference.

    Args:
        word: as somebody wrote it.
        choices: what it may be.
        count: at most so many.
        cutoff: likeness from 0 to 1 below which a choice is left out.
    """
    folded = {choice.lower(): choice for choice in choices}
    return [folded[name] for name in difflib.get_close_matches(
        str(word).lower(), folded, n=count, cutoff=cutoff)]


MOST = 15
"""Choices that a message lists; of more it names those that are close."""


def did_you_mean(word: Any, choices: Sequence[str], every_one: str = "") -> str:
    """One line: the closest choice if one is close, then all.

    Args:
        word: as somebody wrote it.
        choices: what it may be.
        every_one: how to see them all, where they are too many for a line.
    """
    if every_one and len(choices) > MOST:
        shows = f"{every_one} shows all {len(choices)}"
        near = closest(word, choices, 3, 0.5)
        return f"did you mean {' or '.join(map(repr, near))}? ({shows})" if near else shows
    close = closest(word, choices, cutoff=0.5)
    every = "one of: " + ", ".join(choices) if choices else "it takes none"
    return f"did you mean {close[0]!r}? ({every})" if close else every


def listed(names: Sequence[str]) -> str:
    """`a, b and c`; at least one name."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def counted(count: int, noun: str) -> str:
    """`1 run`, `2 runs`; nouns whose plural ends in s."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
