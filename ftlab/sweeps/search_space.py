"""The space of a sweep: checked ranges and choices, and how they enter a technique's config."""

from __future__ import annotations

import copy
import dataclasses
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from ftlab.errors import InputError
from ftlab.studies.argument_values import as_shown
from ftlab.studies.components import Component, check, class_of, component_of, schema
from ftlab.studies.yaml_file import Place, typed
from ftlab.sweeps.distributions import Space, as_written, distribution, hold
from ftlab.techniques.base import Choice, LogUniform, Optimization, Technique
from ftlab.wording import did_you_mean


def make_space(
    technique: Component, given: Mapping[Any, Any], place: Place, allow: tuple[str, ...] = (),
    elsewhere: Sequence[Component] = (),
) -> tuple[Space, list[str]]:
    """The space of a technique: what it brings, changed by what a sweep file says.

    The study's own value is always inside, so that the first trial is the study's own setting.

    Args:
        technique: checked, as in the study.
        given: hyperparameter -> `{low, high, log, step}`, `{choices: [...]}`, or null, which
            takes it out of the search.
        place: of `given`.
        allow: packages outside ftlab that the study may name.
        elsewhere: the technique as it stands on other pairs of data set and backbone, whose own
            values are inside as well.

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
    for key, entry in {**written, **given}.items():
        key, here = str(key), place / str(key)
        annotation, value = _argument(technique, key, here)
        if entry is None:
            continue
        if isinstance(entry, LogUniform | Choice):
            entry = as_written(entry)
        elif not isinstance(entry, Mapping):
            raise InputError(f"{here}: expected a range, choices or null, got {entry}",
                             "{low: 1.0e-4, high: 1.0e-2, log: true}, or {choices: [...]}")
        entry = typed(_texts(entry, annotation, here), here)
        made = widened = distribution(entry, _whole(annotation), here)
        for setting in (value, *(_argument(other, key, here)[1] for other in elsewhere)):
            held = hold(widened, setting, here)
            if held != widened and setting is not None:  # null leaves it to the technique: no value outside
                notes.append(f"{here.keys[-2]}.{key}: widened to hold the study's own {setting}")
            widened = held
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
    space = dict(cls.space(technique["init_args"]))
    optim = technique["init_args"].get("optim") or {}
    rate = space.get("lr")
    if isinstance(rate, LogUniform) and "optimizer" in optim:  # ranges are AdamW's
        times = Optimization(optimizer=optim["optimizer"], schedule=optim["schedule"]).kind.rate
        space["lr"] = LogUniform(rate.low * times, rate.high * times)
    for name, parameter in schema(cls).items():
        kind = component_of(parameter)
        if kind is not None and issubclass(kind, Technique):
            inner = _brought(technique["init_args"][name])
            space |= {f"{name}.{key}": value for key, value in inner.items()}
    return space


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


def _texts(entry: Mapping[str, Any], annotation: Any, place: Place) -> Mapping[str, Any]:
    """A space as the sweep file has it, with choices that are texts as the file shows them."""
    if not isinstance(entry.get("choices"), list):
        return dict(entry)
    return {**entry, "choices": as_shown(list[annotation], entry["choices"], place)}


def _whole(annotation: Any) -> bool:
    """Return whether an argument takes whole numbers alone."""
    kinds = typing.get_args(annotation) or (annotation,)
    return int in kinds and float not in kinds


def _argument(technique: Component, key: str, place: Place) -> tuple[Any, Any]:
    """An argument's annotation, and its present value."""
    try:
        return _walk(technique, key)
    except (KeyError, TypeError, AttributeError):
        cls = class_of(technique)
        raise InputError(f"{place}: {cls.__name__} has no argument {key!r}",
                         did_you_mean(key, list(_keys(cls, technique["init_args"])))) from None


def _keys(cls: type, values: Mapping[str, Any]) -> Iterator[str]:
    """Every key that `_walk` finds and that holds one value: `lr`, `optim.warmup`, `technique.lr`."""
    for name, parameter in schema(cls).items():
        inner = values[name]
        if component_of(parameter) is not None:
            inner = inner and inner["init_args"]
            part = class_of(values[name]) if inner else None
        else:
            part = parameter.annotation if dataclasses.is_dataclass(parameter.annotation) else None
        if part is None:
            yield name
        else:
            yield from (f"{name}.{key}" for key in _keys(part, inner))


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
            reason = error.what.removeprefix(f"{place}: ")
            raise InputError(f"{place}: {value!r} is refused: {reason}", "change the space") from error
