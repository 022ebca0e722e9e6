"""Optuna's samplers and pruners by their short names, with the arguments of their constructors."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from ftlab.errors import InputError
from ftlab.studies.discover import did_you_mean
from ftlab.studies.yaml_file import Place

_SUFFIXES: dict[type, str] = {BaseSampler: "Sampler", BasePruner: "Pruner"}


def make_sampler(said: Any, seed: int, place: Place) -> BaseSampler:
    """A sampler from `TPE` or `{class_path: TPE, init_args: {...}}`.

    Args:
        said: from the sweep file; None for Optuna's multivariate TPE.
        seed: for samplers that draw.
        place: of `said`.

    Raises:
        InputError: no such class or argument, or values that it refuses.
    """
    given = "TPE" if said is None else said
    sampler: BaseSampler = _make(BaseSampler, given, place, {"seed": seed})
    return sampler


def make_pruner(said: Any, place: Place) -> BasePruner:
    """A pruner, as `make_sampler`; None never prunes.

    Raises:
        InputError: no such class or argument, or values that it refuses.
    """
    pruner: BasePruner = _make(BasePruner, "Nop" if said is None else said, place, {})
    return pruner


def _make(base: type, said: Any, place: Place, own: Mapping[str, Any]) -> Any:
    named = isinstance(said, Mapping) and isinstance(said.get("class_path"), str)
    if not isinstance(said, str) and not (named and set(said) <= {"class_path", "init_args"}):
        raise InputError(f"{place}: expected a class of optuna.{base.__name__[4:].lower()}s",
                         "write NAME, or {class_path: NAME, init_args: {...}}")
    name = said if isinstance(said, str) else said["class_path"]
    cls = _find(base, name, place)
    given = {} if isinstance(said, str) else dict(said.get("init_args") or {})
    parameters = inspect.signature(cls).parameters
    for key, value in given.items():
        here = place / "init_args" / key
        if key not in parameters:
            raise InputError(f"{here}: {cls.__name__} has no argument {key!r}",
                             did_you_mean(key, list(parameters)))
        if key == "wrapped_pruner":
            given[key] = _make(BasePruner, value, here, {})
    defaults = {key: value for key, value in own.items() if key in parameters}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # the user's choice
            return cls(**{**defaults, **given})
    except (TypeError, ValueError) as error:
        raise InputError(f"{place}: {cls.__name__}: {error}", "change the value") from error


def _find(base: type, name: str, place: Place) -> type:
    room = optuna.samplers if base is BaseSampler else optuna.pruners
    suffix = _SUFFIXES[base]
    known = {
        cls.__name__.removesuffix(suffix): cls
        for cls in map(room.__dict__.get, room.__all__)
        if inspect.isclass(cls) and issubclass(cls, base) and not inspect.isabstract(cls)
    }
    short = name.removesuffix(suffix)
    if short not in known:
        raise InputError(f"{place}: optuna has no {suffix.lower()} called {name!r}",
                         did_you_mean(short, sorted(known)))
    return known[short]
