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
    """How many there are; infinite where a range has no steps."""
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
    """What a technique brings, as a sweep file would say it."""
    if isinstance(brought, Choice):
        return {"choices": list(brought.options)}
    return {"low": brought.low, "high": brought.high, "log": True}


def distribution(said: Mapping[str, Any], whole: bool, place: Place) -> BaseDistribution:
    """The range or choices that a sweep file says.

    Args:
        said: `{low, high, log, step}` or `{choices: [...]}`.
        whole: whether the hyperparameter takes whole numbers alone.
        place: of `said`.

    Raises:
        InputError: it is none.
    """
    known = ["choices"] if "choices" in said else ["low", "high", "log", "step"]
    for key in said:
        if key not in known:
            raise InputError(f"{place / str(key)}: unknown key", did_you_mean(key, known))
    if "choices" in said:
        return CategoricalDistribution(_choices(said["choices"], place))
    low, high = (_number(said, key, whole, place) for key in ("low", "high"))
    log, step = said.get("log", False), said.get("step")
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
    if step is not None and _number(said, "step", whole, place) <= 0:
        raise InputError(f"{place}: step must be above 0, got {step}", "step: 1")
    if step is not None and (rest := (_decimal(high) - _decimal(low)) % _decimal(step)):
        raise InputError(f"{place}: from {low:g} to {high:g} is no whole number of steps of {step:g}",
                         f"high: {_decimal(high) - rest}")
    if whole:
        return IntDistribution(int(low), int(high), log=log, step=int(step or 1))
    return FloatDistribution(low, high, log=log, step=step)


def _choices(said: Any, place: Place) -> list[Any]:
    if not isinstance(said, list) or not said:
        raise InputError(f"{place}: choices is a list of at least one, got {said}",
                         "choices: [4, 8, 16]")
    for position, choice in enumerate(said):
        if not isinstance(choice, str | int | float | bool | None):
            raise InputError(f"{place}: {choice!r} cannot be a choice",
                             "choices are numbers, texts, true, false or null")
        if choice in said[:position]:
            raise InputError(f"{place}: the choice {choice!r} stands twice", "name it once")
    return said


def _decimal(value: float) -> Decimal:
    """As it is written, since 0.3 is no multiple of 0.1 in binary."""
    return Decimal(str(value))


def _number(said: Mapping[str, Any], key: str, whole: bool, place: Place) -> float:
    value = said.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{place}: {key} must be a number, got {value}",
                         "{low: 1.0e-4, high: 1.0e-2, log: true}, or {choices: [...]}")
    if whole and value != int(value):
        raise InputError(f"{place}: {key} must be a whole number, got {value}", f"{key}: {int(value)}")
    return value


def hold(made: BaseDistribution, own: Any, place: Place) -> BaseDistribution:
    """The distribution, widened to hold the study's own value.

    Raises:
        InputError: it can hold no such value.
    """
    if not isinstance(own, str | int | float | bool | None):
        raise InputError(f"{place}: the study's own value {own} is neither a number nor a text",
                         "search its parts, as in optim.warmup, or take the key out")
    if isinstance(made, CategoricalDistribution):
        return made if own in made.choices else CategoricalDistribution((*made.choices, own))
    assert isinstance(made, FloatDistribution | IntDistribution)
    if not isinstance(own, int | float) or (made.log and own <= 0):
        raise InputError(f"{place}: the study's own value {own} is no point of the range",
                         "give the study a value inside, or name choices")
    if made._contains(own):  # Optuna's own look, which knows the steps
        return made
    low, high = min(made.low, own), max(made.high, own)
    if isinstance(made, IntDistribution) and made.step == 1:
        return IntDistribution(int(low), int(high), log=made.log)
    if made.step is not None:
        raise InputError(f"{place}: the study's own value {own} is no step of the range",
                         "change the range, or the study's value")
    return FloatDistribution(low, high, log=made.log)
