"""The one model of a table, before any format: headings, groups of lines, footnotes, caption."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Generic, Self, TypeVar

from ftlab.statistics.seed_summary import Summary

NONE = "-"
R = TypeVar("R")


class Quantity(str):
    """A number as the table shows it, `95.00 ± 0.82 (3)`, with its parts for formats that align them.

    Args:
        number: the mean, `95.00`.
        spread: its standard deviation; NONE where it is undefined, empty where none is meant.
        beside: what stands in brackets behind it, `3` or `0.1%`; empty for nothing.
    """

    number: str
    spread: str
    beside: str

    def __new__(cls, number: str, spread: str = "", beside: str = "") -> Self:
        text = number + (f" ± {spread}" if spread else "") + (f" ({beside})" if beside else "")
        made = super().__new__(cls, text)
        made.number, made.spread, made.beside = number, spread, beside
        return made


@dataclass(frozen=True)
class Line:
    """One line of a table: a text per column (numbers as `Quantity`), and the columns in bold."""

    texts: tuple[str, ...]
    bold: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Table:
    """The content that every format shows.

    Attributes:
        headings: one per column.
        groups: title (empty with a single group) and lines.
        notes: footnotes, numbered from 1 in the first column.
        caption: says what the numbers are, in a sentence or two.
        about: further explanations, as term and text.
        words: columns of words, aligned on the left; the others hold numbers.
    """

    headings: tuple[str, ...]
    groups: tuple[tuple[str, tuple[Line, ...]], ...]
    notes: tuple[str, ...]
    caption: str
    about: tuple[tuple[str, str], ...] = ()
    words: frozenset[int] = frozenset({0})


def _never(_: object) -> bool:
    return False


@dataclass(frozen=True)
class Column(Generic[R]):
    """One column.

    Attributes:
        heading: with its unit.
        text: what it shows of a row.
        bold: whether that is in bold.
    """

    heading: str
    text: Callable[[R], str]
    bold: Callable[[R], bool] = _never


def tabulate(rows: Sequence[R], columns: Sequence[Column[R]], *, name: Callable[[R], str],
             title: Callable[[R], str], notes: Callable[[R], Sequence[str]] = lambda _: (),
             caption: str = "", about: Sequence[tuple[str, str]] = (),
             words: frozenset[int] = frozenset({0})) -> Table:
    """Write rows of any kind out, in their order.

    Args:
        rows: neighbours of one title make a group.
        columns: all but the first.
        name: a row's technique, in the first column.
        title: of a row's group; not shown where all rows have the same.
        notes: footnotes of a row; equal texts share a number.
        caption: of the table.
        about: of the table.
        words: of the table.
    """
    texts = list(dict.fromkeys(note for row in rows for note in notes(row)))
    numbers = {note: str(number) for number, note in enumerate(texts, 1)}

    def line(row: R) -> Line:
        marks = ", ".join(numbers[note] for note in notes(row))
        first = name(row) + (f" [{marks}]" if marks else "")
        bold = frozenset(place for place, column in enumerate(columns, 1) if column.bold(row))
        return Line((first, *(column.text(row) for column in columns)), bold)

    groups = [(heading, tuple(map(line, members))) for heading, members in groupby(rows, key=title)]
    if len(groups) < 2:
        groups = [("", groups[0][1] if groups else ())]
    return Table(("technique", *(column.heading for column in columns)), tuple(groups),
                 tuple(texts), caption, tuple(about), words)


def group_title(group: tuple[str, str]) -> str:
    """`bbc from minilm`, of a backbone and a data set."""
    backbone, dataset = group
    return f"{dataset} from {backbone}"


def quantity(summary: Summary, number: Callable[[float], str]) -> str:
    """`95.00 ± 0.82 (3)`; one seed has no spread, and no seed nothing."""
    if not summary.n:
        return NONE
    if not math.isfinite(summary.mean):
        return f"{NONE} ({summary.n})"
    spread = number(summary.std) if math.isfinite(summary.std) else NONE
    return Quantity(number(summary.mean), spread, str(summary.n))


def interval(summary: Summary, number: Callable[[float], str]) -> str:
    """`[94.0, 96.0]`; none is invented for one seed, nor for seeds that are all equal.

    What does not depend on the seed (an optimum, say) shows nothing of how sure its mean is: there
    it is that of the test examples, or none.
    """
    if not summary.interval:
        return NONE
    return f"[{number(summary.ci_low)}, {number(summary.ci_high)}]"


def plain(value: float, number: Callable[[float], str]) -> str:
    """A number alone; NONE where it is not finite."""
    return Quantity(number(value)) if math.isfinite(value) else NONE
