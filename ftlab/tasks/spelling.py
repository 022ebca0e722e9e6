"""One class under several spellings: 1, "1" and 1.0 are one, and so is é, however it is composed."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from ftlab.errors import InputError
from ftlab.tasks.class_names import class_name, name_order, plain

_NUMBER = re.compile(r"[+-]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
"""A number as people and programs write it; with a leading zero it is a code, as 01 is."""
_WORDS = {word: word.lower() for word in ("true", "True", "TRUE", "false", "False", "FALSE")}


def key(name: str) -> str:
    """The same for all spellings of a class's name.

    Numbers go by value, whatever signs, points, zeros at the end and exponents they are written
    with, and without rounding; `true` and `false` go without capitals; any other text is its own,
    composed as Unicode's NFC and without white space around it.
    """
    name = unicodedata.normalize("NFC", name.strip())
    if name in _WORDS:
        return _WORDS[name]
    if not is_number(name):
        return name
    return plain(Decimal(name))


def is_number(name: str) -> bool:
    """Return whether a text writes a number, and no code such as 01."""
    return _NUMBER.fullmatch(name) is not None


class Classes:
    """The classes of train, in order, each found under every spelling of its name.

    Args:
        names: of the classes, once for each time that one occurs.
        order: all classes, where they are known; else those that occur, numbers by value first.
    """

    def __init__(self, names: Iterable[str] = (), order: Sequence[str] | None = None) -> None:
        counts: Counter[str] = Counter()
        spellings: dict[str, set[str]] = defaultdict(set)
        for name, count in Counter(names).items():
            spellings[key(name)].add(name)
            counts[key(name)] += count
        self.names = (sorted(map(_shown, spellings.values()), key=name_order) if order is None
                      else list(order))
        self.counts = [counts[key(name)] for name in self.names]
        self._places = {key(name): place for place, name in enumerate(self.names)}

    def place(self, name: str) -> int | None:
        """Position of the class in `names`; None of one that train does not have."""
        return self._places.get(key(name))


def one_spelling(names: Sequence[Any]) -> list[Any]:
    """Names with each class under one of the spellings that occur; what is no text stays."""
    texts = Classes(name for name in names if isinstance(name, str))
    return [texts.names[texts.place(name) or 0] if isinstance(name, str) else name
            for name in names]


def note_spellings(names: Iterable[str]) -> list[str]:
    """One note on classes that occur under several spellings; nothing where there are none."""
    spellings: dict[str, set[str]] = defaultdict(set)
    for name in set(names):
        spellings[key(name)].add(name)
    several = [_apart(same) for same in spellings.values() if len(same) > 1]
    if not several:
        return []
    more = f" (and {len(several) - 1} more so)" if len(several) > 1 else ""
    return [f"labels {min(several)} are spellings of one class{more}; rename them if they are not"]


def renamed(label: Any, classes: Mapping[str, str], where: str, what: str = "label") -> str:
    """A raw label's new name: under its own spelling, else under another of the same class.

    Raises:
        InputError: the label is not in `classes`, or has no name there, or is none.
    """
    name = class_name(label, where)
    old = name if name in classes else next((old for old in classes if key(old) == key(name)), None)
    if old is None:
        raise InputError(f"{where}: {what} {name!r} is not in classes",
                         f"add it to classes, which has: {', '.join(classes)}")
    if not classes[old].strip():
        raise InputError(f"classes gives {old!r} an empty name", "name the class")
    return classes[old]


def _apart(same: Iterable[str]) -> str:
    """Spellings side by side; by their codes where a reader would see no difference."""
    names = sorted(same)
    alike = len({unicodedata.normalize("NFC", name) for name in names}) < len(names)
    return " and ".join(map(ascii if alike else repr, names))


def _shown(same: Iterable[str]) -> str:
    """The shortest of some spellings; of equally long ones the plain number or word."""
    return min(same, key=lambda name: (len(name), name != key(name), name))
