"""A paper's numbers beside a study's own: `paper:` in the study file, checked.

It says nothing about what runs: no cell's hash depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ftlab.errors import InputError
from ftlab.studies.yaml_file import Place, typed
from ftlab.studies.yaml_schema import text_of
from ftlab.tracking.metric_facts import SPLIT
from ftlab.tracking.mlflow_values import name_of
from ftlab.wording import did_you_mean

UNITS = {"percent": 0.01, "fraction": 1.0, "plain": 1.0}
"""What a number is multiplied by to be in the metric's own unit: ftlab's shares are fractions."""
PROTOCOL = ("split", "metric", "averaging", "preprocessing", "initialisation")
_TEXTS = ("citation", "url", "where")
_KEYS = (*_TEXTS, "metric", "unit", "tolerance", "protocol", "numbers")
_NUMBER = ("value", "where")


@dataclass(frozen=True)
class PaperNumber:
    """One number of a paper.

    Attributes:
        technique: of the study.
        backbone: of the study.
        dataset: of the study; empty where the number is a group's mean over tasks.
        group: of the study's `groups`; empty where the number is of a data set.
        value: in the metric's own unit, a share as a fraction.
        where: table and row, where it differs from the paper's.
    """

    technique: str
    backbone: str
    dataset: str
    group: str
    value: float
    where: str = ""


@dataclass(frozen=True)
class Paper:
    """A publication's numbers, where they stand and how they were measured.

    Attributes:
        citation, url, where: authors and year, address, table and row.
        metric: of the study's runs that it is compared with.
        unit: of the numbers as printed: percent, fraction, or plain for a metric without unit.
        tolerance: in the metric's own unit; None where an interval alone decides.
        protocol: split, metric, averaging, preprocessing and initialisation, in words.
        numbers: as printed, in the metric's own unit, in the file's order.
        written: all of it, as the study file has it.
    """

    citation: str
    url: str
    where: str
    metric: str
    unit: str
    tolerance: float | None
    protocol: Mapping[str, str]
    numbers: tuple[PaperNumber, ...]
    written: Mapping[str, Any] = field(default_factory=dict)


def check_paper(value: Any, report: str, axes: Mapping[str, Sequence[str]],
                groups: Sequence[str], place: Place) -> Paper | None:
    """Read `paper:` of a study file.

    Args:
        value: as written; None where the study has none.
        report: the study's metric, which the paper's is unless it says otherwise.
        axes: names of backbones, datasets and techniques.
        groups: names of the study's groups of data sets.
        place: of the key.

    Raises:
        InputError: with the line of what is wrong or missing.
    """
    if value is None:
        return None
    entry = _checked_keys(value, _KEYS, place)
    texts = {name: _text(entry.get(name), place / name) for name in _TEXTS}
    protocol = _checked_keys(entry.get("protocol"), PROTOCOL, place / "protocol")
    words = {name: _text(protocol.get(name), place / "protocol" / name) for name in PROTOCOL}
    metric = name_of(str(entry.get("metric", report)))
    if not SPLIT.match(metric):
        raise InputError(f"{place / 'metric'}: {metric!r} is no metric of a split",
                         "test/accuracy, val/f1_macro, ...")
    unit = entry.get("unit")
    if unit not in UNITS:
        raise InputError(f"{place / 'unit'}: in which unit are the numbers, {unit!r}?",
                         "percent (95.1), fraction (0.951), or plain for a metric without unit")
    tolerance = entry.get("tolerance")
    if tolerance is not None:
        tolerance = _number(tolerance, place / "tolerance") * UNITS[unit]
        if tolerance < 0:
            raise InputError(f"{place / 'tolerance'}: below zero", "a distance in the same unit")
    numbers = _numbers(entry.get("numbers"), unit, axes, groups, place / "numbers")
    return Paper(**texts, metric=metric, unit=unit, tolerance=tolerance, protocol=words,
                 numbers=numbers, written=entry)


def _numbers(value: Any, unit: str, axes: Mapping[str, Sequence[str]], groups: Sequence[str],
             place: Place) -> tuple[PaperNumber, ...]:
    backbones = axes["backbones"]
    targets = {f"{name} from {backbone}": (name, backbone, name in axes["datasets"])
               for backbone in backbones for name in (*axes["datasets"], *groups)}
    if len(backbones) == 1:  # its name need not be said
        targets |= {target[0]: target for target in targets.values()}
    numbers = []
    for technique, entries in _mapping(value, place).items():
        here = place / str(technique)
        if technique not in axes["techniques"]:
            raise InputError(f"{here}: the study has no technique {technique!r}",
                             did_you_mean(technique, axes["techniques"]))
        for target, entry in _mapping(entries, here).items():
            there = here / str(target)
            if target not in targets:
                raise InputError(f"{there}: the study has no such data set or group",
                                 did_you_mean(target, list(targets)))
            one = (_checked_keys(entry, _NUMBER, there) if isinstance(entry, Mapping)
                   else {"value": entry})
            number = _in_unit(one.get("value"), unit, there)
            name, backbone, is_data = targets[str(target)]
            where = str(one.get("where", ""))
            numbers.append(PaperNumber(str(technique), backbone, name if is_data else "",
                                   "" if is_data else name, number, where))
    seen: set[tuple[str, str, str, str]] = set()
    for number_ in numbers:
        key = (number_.technique, number_.backbone, number_.dataset, number_.group)
        if key in seen:
            raise InputError(f"{place / number_.technique}: a number stands twice, with and "
                             "without `from`", "remove one of the two")
        seen.add(key)
    if not numbers:
        raise InputError(f"{place}: at least one is needed", "numbers: {lora: {sst2: 95.1}}")
    return tuple(numbers)


def _in_unit(value: Any, unit: str, place: Place) -> float:
    """The number in the metric's own unit; what cannot be in the unit that is said is refused."""
    number = _number(value, place)
    if unit == "fraction" and abs(number) > 1:
        raise InputError(f"{place}: {number:g} is no fraction", "unit: percent, or divide by 100")
    if unit == "percent" and 0 < abs(number) <= 1:
        raise InputError(f"{place}: {number:g} percent looks like a fraction",
                         "unit: fraction, or multiply by 100")
    if unit == "percent" and abs(number) > 100:
        raise InputError(f"{place}: {number:g} percent is above 100", "unit: plain, if it is so")
    # 95.1 percent is 0.951, not 0.9510000000000001
    return float(f"{number / 100:.12g}") if unit == "percent" else number


def _number(value: Any, place: Place) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"{place}: expected a number, got {value!r}", "95.1")
    return float(typed(value, place))


def _text(value: Any, place: Place) -> str:
    value = text_of(value)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{place}: has to be said, in words", "see experiments/papers/")
    return " ".join(value.split())


def _mapping(value: Any, place: Place) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{place}: expected a mapping, got {value!r}", "key: value")
    return dict(value)


def _checked_keys(value: Any, keys: Sequence[str], place: Place) -> dict[Any, Any]:
    entries = _mapping(value, place)
    for key in entries:
        if key not in keys:
            raise InputError(f"{place / str(key)}: unknown key", did_you_mean(key, list(keys)))
    return entries
