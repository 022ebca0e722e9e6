"""Ranges and choices: what a sweep file says, checked, as Optuna takes it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from ftlab.errors import InputError
from ftlab.studies.yaml_file import Place
from ftlab.techniques.base import Choice, LogUniform
from ftlab.wording import did_you_mean

Space = dict[str, BaseDistribution]
"""Distributions by hyperparameter: an argument of the technique, or `part.argument` of a part."""


def points(space: Space) -> float:
    """Count the points of a space; infinite where a range has no steps."""
    count: float = 1
    for distribution in space.values():
        if isinstance(distribution, CategoricalDistribution):
            count *= len(distribution.choices)
        else:
            assert isinstance(distribution, FloatDistribution | IntDistribution)
            width = distribution.high - distribution.low
            count *= round(width / distribution.step) + 1 if distribution.step else math.inf
    return count


def as_written(brought: LogUniform | Choice) -> dict[str, Any]:
    """A technique's own range or choices, as a sweep file would say them."""
    if isinstance(brought, Choice):
        return {"choices": list(brought.options)}
    return {"low": brought.low, "high": brought.high, "log": True}


def distribution(entry: Mapping[str, Any], whole: bool, place: Place) -> BaseDistribution:
    """The range or choices that a sweep file says.

    Args:
        entry: `{low, high, log, step}` or `{choices: [...]}`.
        whole: whether the hyperparameter takes whole numbers alone.
        place: of `entry`.

    Raises:
        InputError: it is none.
    """
    keys = ["choices"] if "choices" in entry else ["low", "high", "log", "step"]
    for key in entry:
        if key not in keys:
            raise InputError(f"{place / str(key)}: unknown key", did_you_mean(key, keys))
    if "choices" in entry:
        return CategoricalDistribution(_choices(entry["choices"], place))
    low, high = (_number(entry, key, whole, place) for key in ("low", "high"))
    log, step = entry.get("log", False), entry.get("step")
    if not isinstance(log, bool):
        raise InputError(f"{place / 'log'}: expected true or false, got {log}", "log: true")
    if low >= high:
        raise InputError(f"{place}: the range from {low:g} to {high:g} is "
                         f"{'empty' if low == high else 'reversed'}", "low must be below high")
    if log and low <= 0:
        raise InputError(f"{place}: a logarithmic range cannot begin at {low:g}",
                         "raise low above 0, or leave out log")
    if log and step is not None:
        raise InputError(f"{place}: log and step exclude each other", "leave out one of the two")
    if step is not None and _number(entry, "step", whole, place) <= 0:
        raise InputError(f"{place}: step must be above 0, got {step}", "step: 1")
    if step is not None and (rest := (_decimal(high) - _decimal(low)) % _decimal(step)):
        raise InputError(f"{place}: from {low:g} to {high:g} is no whole number of steps of {step:g}",
                         f"high: {_decimal(high) - rest}")
    if whole:
        return IntDistribution(int(low), int(high), log=log, step=int(step or 1))
    return FloatDistribution(low, high, log=log, step=step)


def _choices(choices: Any, place: Place) -> list[Any]:
    if not isinstance(choices, list) or not choices:
        raise InputError(f"{place}: choices is a list of at least one, got {choices}",
                         "choices: [4, 8, 16]")
    for position, choice in enumerate(choices):
        if not isinstance(choice, str | int | float | bool | None):
            raise InputError(f"{place}: {choice!r} cannot be a choice",
                             "choices are numbers, texts, true, false or null")
        if choice in choices[:position]:
            raise InputError(f"{place}: the choice {choice!r} stands twice", "name it once")
    return choices


def _decimal(value: float) -> Decimal:
    """As it is written, since 0.3 is no multiple of 0.1 in binary."""
    return Decimal(str(value))


def _number(entry: Mapping[str, Any], key: str, whole: bool, place: Place) -> float:
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{place}: {key} must be a number, got {value}",
                         "{low: 1.0e-4, high: 1.0e-2, log: true}, or {choices: [...]}")
    if whole and value != int(value):
        raise InputError(f"{place}: {key} must be a whole number, got {value}", f"{key}: {int(value)}")
    return value


def hold(made: BaseDistribution, value: Any, place: Place) -> BaseDistribution:
    """The distribution, widened to hold the study's own value.

    Raises:
        InputError: it can hold no such value.
    """
    if not isinstance(value, str | int | float | bool | None):
        raise InputError(f"{place}: the study's own value {value} is neither a number nor a text",
                         "search its parts, as in optim.warmup, or take the key out")
    if isinstance(made, CategoricalDistribution):
        return made if value in made.choices else CategoricalDistribution((*made.choices, value))
    assert isinstance(made, FloatDistribution | IntDistribution)
    if not isinstance(value, int | float) or (made.log and value <= 0):
        raise InputError(f"{place}: the study's own value {value} is no point of the range",
                         "give the study a value inside, or name choices")
    if made._contains(value):  # Optuna's own check, which minds the steps
        return made
    low, high = min(made.low, value), max(made.high, value)
    if isinstance(made, IntDistribution) and made.step == 1:
        return IntDistribution(int(low), int(high), log=made.log)
    if made.step is not None:
        raise InputError(f"{place}: the study's own value {value} is no step of the range",
                         "change the range, or the study's value")
    return FloatDistribution(low, high, log=made.log)
