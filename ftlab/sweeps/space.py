"""Where a sweep looks: checked ranges and choices, and how they enter a technique's config."""

from __future__ import annotations

import copy
import dataclasses
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from ftlab.errors import InputError
from ftlab.studies.config import Component, check, class_of, component_of, schema
from ftlab.studies.discover import did_you_mean
from ftlab.studies.yaml_file import Place
from ftlab.techniques.base import Choice, LogUniform, Technique

Space = dict[str, BaseDistribution]
"""Distributions by hyperparameter: an argument of the technique, or `part.argument` of a part."""


@dataclass(frozen=True)
class _Argument:
    """A constructor's argument as a space sees it: its kind and the value it has now."""

    whole: bool
    value: Any


def make_space(
    technique: Component, given: Mapping[str, Any], place: Place, allow: tuple[str, ...] = ()
) -> tuple[Space, list[str]]:
    """The space of a technique: what it brings, changed by what a sweep file says.

    The study's own value is always inside, so that the first trial is the study's own setting.

    Args:
        technique: checked, as in the study.
        given: hyperparameter -> `{low, high, log, step}`, `{choices: [...]}`, or null, which
            takes it out of the search.
        place: of `given`.
        allow: packages outside ftlab that the study may name.

    Returns:
        The space, and notes on ranges that were widened to hold the study's own value.

    Raises:
        InputError: no such hyperparameter, a range that is empty or reversed, a value that the
            constructor refuses.
    """
    brought = _brought(technique)
    written = {key: value for key, value in brought.items() if key not in given}
    space: Space = {}
    notes: list[str] = []
    for key, said in {**written, **given}.items():
        here = place / key
        argument = _argument(technique, key, here)
        if said is None:
            continue
        distribution = said if isinstance(said, Mapping) else _as_mapping(said)
        made = _distribution(distribution, argument, here)
        widened = _hold(made, argument.value, here)
        if widened != made:
            notes.append(f"{here.keys[-2]}.{key}: widened to hold the study's own {argument.value}")
        _try_ends(technique, key, made, here, allow)
        space[key] = widened
    return space, notes


def put(technique: Component, values: Mapping[str, Any]) -> Component:
    """The technique's config with other values of some hyperparameters."""
    changed = copy.deepcopy(technique)
    for key, value in values.items():
        *parts, last = key.split(".")
        node = changed["init_args"]
        for part in parts:
            node = node[part]
            node = node.get("init_args", node)
        node[last] = value
    return changed


def own_values(technique: Component, space: Space) -> dict[str, Any]:
    """The study's own setting of the hyperparameters that are searched."""
    return {key: _walk(technique, key)[1] for key in space}


def _brought(technique: Component) -> dict[str, LogUniform | Choice]:
    """The class's own space, and that of a technique inside it as `technique.lr`."""
    cls = class_of(technique)
    found = dict(cls.search_space)
    for name, parameter in schema(cls).items():
        kind = component_of(parameter)
        if kind is not None and issubclass(kind, Technique):
            inner = _brought(technique["init_args"][name])
            found |= {f"{name}.{key}": value for key, value in inner.items()}
    return found


def _walk(technique: Component, key: str) -> tuple[Any, Any]:
    """Annotation and present value of `key`; KeyError where there is none."""
    cls, node = class_of(technique), technique["init_args"]
    *parts, last = key.split(".")
    for part in parts:
        parameter = schema(cls)[part]
        node = node[part]
        if component_of(parameter) is not None:
            cls, node = class_of(node), node["init_args"]
        elif dataclasses.is_dataclass(parameter.annotation):
            cls = parameter.annotation
        else:
            raise KeyError(part)
    return schema(cls)[last].annotation, node[last]


def _argument(technique: Component, key: str, place: Place) -> _Argument:
    try:
        annotation, value = _walk(technique, key)
    except (KeyError, TypeError, AttributeError):
        cls = class_of(technique)
        raise InputError(f"{place}: {cls.__name__} has no argument {key!r}",
                         did_you_mean(key, list(schema(cls)))) from None
    kinds = typing.get_args(annotation) or (annotation,)
    return _Argument(int in kinds and float not in kinds, value)


def _as_mapping(brought: LogUniform | Choice) -> dict[str, Any]:
    if isinstance(brought, Choice):
        return {"choices": list(brought.options)}
    return {"low": brought.low, "high": brought.high, "log": True}


def _distribution(said: Mapping[str, Any], argument: _Argument, place: Place) -> BaseDistribution:
    known = ["choices"] if "choices" in said else ["low", "high", "log", "step"]
    for key in said:
        if key not in known:
            raise InputError(f"{place / str(key)}: unknown key", did_you_mean(key, known))
    if "choices" in said:
        choices = said["choices"]
        if not isinstance(choices, list) or not choices:
            raise InputError(f"{place}: choices is a list of at least one, got {choices}",
                             "choices: [4, 8, 16]")
        for choice in choices:
            if not isinstance(choice, str | int | float | bool | None):
                raise InputError(f"{place}: {choice!r} cannot be a choice",
                                 "choices are numbers, texts, true, false or null")
        return CategoricalDistribution(choices)
    low, high = (_number(said, key, argument, place) for key in ("low", "high"))
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
    if step is not None and _number(said, "step", argument, place) <= 0:
        raise InputError(f"{place}: step must be above 0, got {step}", "step: 1")
    if argument.whole:
        return IntDistribution(int(low), int(high), log=log, step=int(step or 1))
    return FloatDistribution(low, high, log=log, step=step)


def _number(said: Mapping[str, Any], key: str, argument: _Argument, place: Place) -> float:
    value = said.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{place}: {key} must be a number, got {value}",
                         "{low: 1.0e-4, high: 1.0e-2, log: true}, or {choices: [...]}")
    if argument.whole and value != int(value):
        raise InputError(f"{place}: {key} must be a whole number, got {value}", f"{key}: {int(value)}")
    return value


def _hold(made: BaseDistribution, own: Any, place: Place) -> BaseDistribution:
    """The distribution, widened to hold the study's own value."""
    if isinstance(made, CategoricalDistribution):
        inside = any(type(own) is type(c) and own == c for c in made.choices) or own in made.choices
        return made if inside else CategoricalDistribution((*made.choices, own))
    assert isinstance(made, FloatDistribution | IntDistribution)
    if own is None or (made.log and own <= 0):
        raise InputError(f"{place}: the study's own value {own} is no point of the range",
                         "give the study a value inside, or name choices")
    if made.low <= own <= made.high:
        return made
    if made.step is not None and made.step != 1:
        raise InputError(f"{place}: the study's own value {own} lies outside the range",
                         "widen the range, or change the study's value")
    changed = copy.copy(made)
    changed.low, changed.high = min(made.low, own), max(made.high, own)
    return changed


def _try_ends(technique: Component, key: str, made: BaseDistribution, place: Place,
              allow: tuple[str, ...]) -> None:
    """Let the constructor judge both ends, or every choice."""
    if isinstance(made, CategoricalDistribution):
        values = list(made.choices)
    else:
        assert isinstance(made, FloatDistribution | IntDistribution)
        values = [made.low, made.high]
    for value in values:
        try:
            check(Technique, put(technique, {key: value}), place, allow)
        except InputError as error:
            said = error.what.removeprefix(f"{place}: ")
            raise InputError(f"{place}: {value!r} is refused: {said}", "change the space") from error
