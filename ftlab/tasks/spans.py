"""Entities in a sequence of tags, read strictly: what is not well-formed is no entity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ftlab.tasks.spelling import key

Scheme = Literal["IOB2", "IOBES", "none"]
"""Ways in which tags mark entities.

- `IOB2`: `B-` begins, `I-` continues, `O` is outside (Tjong Kim Sang and Veenstra 1999);
- `IOBES`: as IOB2, with `E-` for the last word and `S-` for an entity of one word;
- `none`: every tag stands for its own word (parts of speech).
"""

Span = tuple[int, int, str]
"""First word, word after the last, type."""

OUTSIDE = "O"
PREFIXES: dict[Scheme, str] = {"IOB2": "BI", "IOBES": "BIES", "none": ""}


def split_tag(tag: str) -> tuple[str, str]:
    """`B-PER` as (`B`, `PER`); (`O`, ``) outside."""
    prefix, _, kind = tag.partition("-")
    return prefix, kind


def is_tag(tag: str, scheme: Scheme) -> bool:
    """Check that a tag belongs to a scheme."""
    if scheme == "none":
        return bool(tag)
    prefix, kind = split_tag(tag)
    return tag == OUTSIDE or (prefix in tuple(PREFIXES[scheme]) and bool(kind))


def spans(tags: Sequence[str], scheme: Scheme) -> set[Span]:
    """The entities, as seqeval's strict mode reads them (https://github.com/chakki-works/seqeval).

    A continuation without its beginning, or of another type, is no entity; in IOBES neither is a
    beginning without its end.
    """
    if scheme == "none":
        return {(i, i + 1, tag) for i, tag in enumerate(tags)}
    entities: set[Span] = set()
    start, kind = None, ""
    for i, tag in enumerate([*tags, OUTSIDE]):
        prefix, name = split_tag(tag)
        if start is not None and not (prefix in ("I", "E") and name == kind):
            if scheme == "IOB2":
                entities.add((start, i, kind))
            start = None
        if prefix == "B":
            start, kind = i, name
        elif prefix == "S":
            entities.add((i, i + 1, name))
        elif prefix == "E" and start is not None:
            entities.add((start, i + 1, kind))
            start = None
    return entities


def first_violation(tags: Sequence[str], scheme: Scheme) -> int | None:
    """Position of the first tag that cannot follow the one before it; None where all can.

    Known tags only (`is_tag`). In IOBES also an entity without its end; the position is then that
    of the tag after it, which may be the end of the sequence.
    """
    if scheme == "none":
        return None
    prefix, kind = OUTSIDE, ""
    for i, tag in enumerate([*tags, OUTSIDE]):
        follows, name = split_tag(tag)
        inside = prefix in "BI" and key(name) == key(kind)
        unfinished = scheme == "IOBES" and prefix in "BI"
        if (follows in "IE" and not inside) or (unfinished and not (follows in "IE" and inside)):
            return i
        prefix, kind = follows, name
    return None


def repaired(tags: Sequence[str]) -> list[str]:
    """IOB2 where each `I-` that continues nothing begins an entity (as conlleval reads it).

    It also turns IOB1, the scheme of CoNLL 2003's files, into IOB2.
    """
    result: list[str] = []
    before = OUTSIDE
    for tag in tags:
        prefix, kind = split_tag(tag)
        continues = before != OUTSIDE and key(split_tag(before)[1]) == key(kind)
        result.append(f"B-{kind}" if prefix == "I" and not continues else tag)
        before = tag
    return result
