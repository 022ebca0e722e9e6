"""Optuna's samplers and pruners by their short names, with the arguments of their constructors."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, QMCSampler

from ftlab.errors import InputError
from ftlab.studies.yaml_file import Place
from ftlab.wording import did_you_mean

_SUFFIXES: dict[type, str] = {BaseSampler: "Sampler", BasePruner: "Pruner"}
_NESTED: dict[str, type] = {"wrapped_pruner": BasePruner, "independent_sampler": BaseSampler}
_NEEDLESS = {
    "Grid": "BruteForce visits every point of the spaces, and needs no list of them",
    "PartialFixed": "a key that is null in spaces keeps the study's value",
}


def make_sampler(written: Any, seed: int, place: Place) -> BaseSampler:
    """A sampler from `TPE` or `{class_path: TPE, init_args: {...}}`.

    Args:
        written: from the sweep file; None for Optuna's multivariate TPE. A `seed` in it changes
            every draw through the sweep's digest, from which `seed` comes: used as it stands it
            would repeat one draw in all trials.
        seed: of one trial, for samplers that draw.
        place: of `written`.

    Raises:
        InputError: no such class or argument, or values that it refuses.
    """
    given = "TPE" if written is None else written
    sampler: BaseSampler = _make(BaseSampler, given, place, seed)
    return sampler


def make_pruner(written: Any, place: Place) -> BasePruner:
    """A pruner, as `make_sampler`; None never prunes.

    Raises:
        InputError: no such class or argument, or values that it refuses.
    """
    pruner: BasePruner = _make(BasePruner, "Nop" if written is None else written, place)
    return pruner


def _make(base: type, written: Any, place: Place, seed: int = 0) -> Any:
    named = isinstance(written, Mapping) and isinstance(written.get("class_path"), str)
    if not isinstance(written, str) and not (named and set(written) <= {"class_path", "init_args"}):
        raise InputError(f"{place}: expected a class of optuna.{base.__name__[4:].lower()}s",
                         "write NAME, or {class_path: NAME, init_args: {...}}")
    name = written if isinstance(written, str) else written["class_path"]
    cls = _find(base, name, place)
    given = {} if isinstance(written, str) else written.get("init_args") or {}
    if not isinstance(given, Mapping):
        raise InputError(f"{place / 'init_args'}: expected a mapping of arguments", "key: value")
    parameters = inspect.signature(cls).parameters
    values: dict[str, Any] = {}
    for key, value in given.items():
        here = place / "init_args" / str(key)
        if key not in parameters:
            raise InputError(f"{here}: {cls.__name__} has no argument {key!r}",
                             did_you_mean(key, list(parameters)))
        nested = key in _NESTED and value is not None
        values[key] = _make(_NESTED[key], value, here, seed) if nested else value
    if "seed" in parameters:
        chosen = values.get("seed")
        if chosen is not None and type(chosen) is not int:
            raise InputError(f"{place / 'init_args' / 'seed'}: expected a whole number, got {chosen}",
                             "seed: 1")
        # one sequence for all trials: Optuna remembers in the storage how far it is
        values["seed"] = (chosen or 0) if cls is QMCSampler else seed
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # the user's choice
            return cls(**values)
    except (TypeError, ValueError) as error:
        raise InputError(f"{place}: {cls.__name__}: {error}", "change the value") from error


def offered(base: type) -> list[str]:
    """Names of the samplers or pruners that a sweep file may name, short and as Optuna has them.

    Args:
        base: `BaseSampler` or `BasePruner`.
    """
    short = sorted(_classes(base).keys() - _NEEDLESS.keys())
    return [*short, *(f"{name}{_SUFFIXES[base]}" for name in short)]


def _classes(base: type) -> dict[str, type]:
    room = optuna.samplers if base is BaseSampler else optuna.pruners
    return {
        cls.__name__.removesuffix(_SUFFIXES[base]): cls
        for cls in map(room.__dict__.get, room.__all__)
        if inspect.isclass(cls) and issubclass(cls, base) and not inspect.isabstract(cls)
    }


def _find(base: type, name: str, place: Place) -> type:
    suffix, classes = _SUFFIXES[base], _classes(base)
    short = name.removesuffix(suffix)
    if short in _NEEDLESS and base is BaseSampler:
        raise InputError(f"{place}: {name} is not offered: {_NEEDLESS[short]}", "sampler: BruteForce"
                         if short == "Grid" else "spaces: {TECHNIQUE: {KEY: null}}")
    if short not in classes:
        raise InputError(f"{place}: optuna has no {suffix.lower()} called {name!r}",
                         did_you_mean(short, sorted(classes.keys() - _NEEDLESS.keys())))
    return classes[short]
