"""Seeds of a study: how many runs a cell has, and what a seed draws."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ftlab.errors import InputError
from ftlab.statistics.looks import MOST
from ftlab.statistics.multiple_testing import FEWEST
from ftlab.studies.yaml_file import Place
from ftlab.tracking.metric_range import is_percent, limits
from ftlab.wording import did_you_mean, listed

DRAWS = ("training", "split")
"""The parts that a seed may draw: `training` is the head, the order, dropout and augmentation; `split` is
which examples train and which validate."""
_UNTIL = "{until: decided, margin: 2.0, first: 3, most: 20}"
_KEYS = ("until", "margin", "first", "most", "of", "list")


@dataclass(frozen=True)
class UntilDecided:
    """Seeds are added until every comparison is decided.

    Attributes:
        margin: below which a difference does not matter, in the unit in which the metric is
            printed: points where that is percent.
        first: seeds before the first look.
        numbers: the seeds in their order, all that a cell may have.
    """

    margin: float
    first: int = FEWEST
    numbers: tuple[int, ...] = tuple(range(20))

    @property
    def most(self) -> int:
        """Seeds of a cell at most."""
        return len(self.numbers)

    @property
    def written(self) -> dict[str, Any]:
        """As a study file writes it; seeds that are counted from 0 need no list."""
        counted = self.numbers == tuple(range(self.most))
        which = {"most": self.most} if counted else {"list": list(self.numbers)}
        return {"until": "decided", "margin": self.margin, "first": self.first, **which}


@dataclass(frozen=True)
class Seeds:
    """A study's seeds.

    Attributes:
        numbers: that a cell has, or may have.
        until: says when fewer of them do; None where every cell has all.
        of: what each draws, some of `DRAWS`.
    """

    numbers: tuple[int, ...]
    until: UntilDecided | None = None
    of: tuple[str, ...] = DRAWS[:1]

    @property
    def written(self) -> Any:
        """As a study file writes them."""
        drawn = {} if self.of == DRAWS[:1] else {"of": list(self.of)}
        if self.until is not None:
            return {**self.until.written, **drawn}
        return {"list": list(self.numbers), **drawn} if drawn else list(self.numbers)


def check(value: Any, place: Place) -> Seeds:
    """Seeds from a study file: a list, or a mapping.

    Raises:
        InputError: with what is wrong, and where.
    """
    if not isinstance(value, Mapping):
        return Seeds(check_list(value, place))
    for key in value:
        if key not in _KEYS:
            raise InputError(f"{place / str(key)}: unknown key", did_you_mean(str(key), list(_KEYS)))
    of = _drawn(value.get("of", [DRAWS[0]]), place)
    if "until" not in value:
        if alone := [key for key in ("margin", "first", "most") if key in value]:
            raise InputError(f"{place / alone[0]}: only with until: decided", _UNTIL)
        return Seeds(check_list(value.get("list", [0, 1, 2]), place / "list"), None, of)
    if value["until"] != "decided":
        raise InputError(f"{place / 'until'}: expected decided, got {value['until']}", _UNTIL)
    until = _until(value, place)
    return Seeds(until.numbers, until, of)


def _until(value: Mapping[str, Any], place: Place) -> UntilDecided:
    margin = value.get("margin")
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not 0 < margin < math.inf:
        raise InputError(
            f"{place / 'margin'}: expected a number above 0, got {margin}",
            "the difference below which two techniques count as equal, in the unit in which the "
            "metric is printed: 2.0 are two points of accuracy")
    first = _count(value.get("first", FEWEST), place / "first")
    if first < FEWEST:
        raise InputError(f"{place / 'first'}: nothing can be claimed with fewer than {FEWEST} seeds, "
                         f"got {first}", f"first: {FEWEST}")
    if "list" in value and "most" in value:
        raise InputError(f"{place / 'most'}: the list says how many seeds there are", "leave out one of the two")
    numbers = check_list(value["list"], place / "list") if "list" in value else ()
    most = len(numbers) if numbers else _count(value.get("most", 20), place / "most")
    if most < first:
        where = place / ("list" if numbers else "most")
        raise InputError(f"{where}: {most} seeds are fewer than the first {first}",
                         f"at least {first} seeds, or a smaller first")
    if most > MOST:
        raise InputError(f"{place / 'most'}: at most {MOST} seeds, got {most}", f"most: {MOST}")
    return UntilDecided(float(margin), first, numbers or tuple(range(most)))


def _count(value: Any, place: Place) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(f"{place}: expected a whole number, got {value}", _UNTIL)
    return value


def _drawn(value: Any, place: Place) -> tuple[str, ...]:
    names = value if isinstance(value, list) else [value]
    for name in names:
        if name not in DRAWS:
            raise InputError(f"{place / 'of'}: a seed draws {listed(DRAWS)}, not {name!r}",
                             f"of: [{', '.join(DRAWS)}]")
    if DRAWS[0] not in names:
        raise InputError(f"{place / 'of'}: a seed always draws {DRAWS[0]}", f"of: [{', '.join(DRAWS)}]")
    return tuple(name for name in DRAWS if name in names)


def check_list(seeds: Any, place: object) -> tuple[int, ...]:
    """Different whole numbers.

    Raises:
        InputError: they are none.
    """
    whole = isinstance(seeds, list) and all(
        isinstance(s, int) and not isinstance(s, bool) and 0 <= s < 2**32 for s in seeds)
    if not whole or not seeds:
        raise InputError(f"{place}: expected a list of whole numbers, got {seeds}",
                         f"[0, 1, 2], or {_UNTIL}")
    if len(set(seeds)) < len(seeds):
        raise InputError(f"{place}: a seed stands twice in {seeds}", "list each seed once")
    return tuple(map(int, seeds))


def check_decidable(seeds: Seeds, report: str, techniques: int, place: Place) -> None:
    """Refuse a study that has nothing to decide, or a margin that its metric cannot have.

    Args:
        seeds: of the study.
        report: the metric compared.
        techniques: how many the study has.
        place: of the seeds.

    Raises:
        InputError: with what is wrong, and where.
    """
    if seeds.until is None:
        return
    if techniques < 2:
        raise InputError(f"{place / 'until'}: one technique is compared with nothing",
                         "add a technique, or list the seeds: [0, 1, 2]")
    check_margin(seeds.until, report, place)


def check_margin(until: UntilDecided, metric: str, place: Place) -> None:
    """Refuse a margin that differences of a metric cannot reach.

    Raises:
        InputError: with what is wrong, and where.
    """
    low, high = limits(metric)
    widest = (high - low) * (100 if is_percent(metric) else 1)
    if until.margin >= widest:
        unit = " points" if is_percent(metric) else ""
        raise InputError(
            f"{place / 'margin'}: {until.margin:g} is no margin: values of {metric} differ by at most "
            f"{widest:g}{unit}", "the difference below which two techniques count as equal")
