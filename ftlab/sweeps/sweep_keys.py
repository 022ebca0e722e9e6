"""Checks the values of a sweep file's keys."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ftlab.errors import InputError
from ftlab.studies.seeds import check_list
from ftlab.studies.study import Study
from ftlab.studies.yaml_file import Place
from ftlab.sweeps.distributions import Space
from ftlab.sweeps.search_space import make_space
from ftlab.tracking.mlflow_values import name_of
from ftlab.wording import did_you_mean

COSTS = ("cost/trainable_parameters", "cost/train_seconds", "cost/step_seconds",
         "cost/peak_memory_bytes")
"""Costs that a trial measures beside the validation metrics; less is better."""


def check_seeds(written: Any, searches: int, place: Place | str) -> tuple[int, ...]:
    """Check the seeds of the first search, and those of the last that follow from them.

    Raises:
        InputError: they are no different whole numbers.
    """
    seeds = check_list(written, place)
    check_list([seed + (searches - 1) * (max(seeds) - min(seeds) + 1) for seed in seeds], place)
    return seeds


def check_objectives(written: Any, study: Study, place: Place) -> tuple[str, ...]:
    """Check `objective`: a validation metric or a cost, or a list of them.

    Raises:
        InputError: it names something else.
    """
    names = written if isinstance(written, list) else [written]
    if not names or len(set(map(str, names))) < len(names):
        raise InputError(f"{place}: expected a metric, or a list of different ones",
                         f"objective: {study.select_by}")
    for name in names:
        if not isinstance(name, str) or not (name.startswith("val/") or name in COSTS):
            raise InputError(f"{place}: {name!r} cannot be an objective",
                             f"val/METRIC, or one of: {', '.join(COSTS)}")
    return tuple(map(name_of, names))


def check_spaces(
    written: Any, study: Study, place: Place, allow: tuple[str, ...]
) -> tuple[dict[str, Space], list[str]]:
    """Check `spaces` and make the space of each technique; with notes for the sweep's user.

    Raises:
        InputError: it names something that cannot be searched.
    """
    techniques = {cell.key.technique: cell.technique for cell in study.cells}
    given = {} if written is None else written
    if not isinstance(given, Mapping):
        raise InputError(f"{place}: expected a mapping of techniques", "lora: {rank: {choices: [4, 8]}}")
    for name, space in given.items():
        if name not in techniques:
            raise InputError(f"{place / str(name)}: the study has no technique {name!r}",
                             did_you_mean(name, list(techniques)))
        if not isinstance(space, Mapping):
            raise InputError(f"{place / str(name)}: expected a mapping of hyperparameters",
                             "rank: {choices: [4, 8]}")
    spaces: dict[str, Space] = {}
    notes: list[str] = []
    for name, technique in techniques.items():
        elsewhere = [cell.technique for cell in study.cells
                     if cell.key.technique == name and cell.technique != technique]
        here = place / str(name)
        spaces[name], more = make_space(technique, given.get(name, {}), here, allow, elsewhere)
        notes += more
    return spaces, notes


def check_positive(value: Any, place: Place, whole: bool = False) -> float:
    """Check a number above 0.

    Raises:
        InputError: it is something else.
    """
    right = isinstance(value, int) or (isinstance(value, float) and not whole)
    if not right or isinstance(value, bool) or not 0 < value < math.inf:
        raise InputError(f"{place}: expected a {'whole ' if whole else ''}number above 0, got {value}",
                         f"{place.keys[-1]}: 16")
    return float(value)
