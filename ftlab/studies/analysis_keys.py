"""Analysis keys of a study: how epochs are chosen, against which technique, over which groups, as what else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ftlab.errors import InputError
from ftlab.studies.yaml_file import Place
from ftlab.studies.yaml_schema import text_of
from ftlab.tracking.mirrors.base import all_mirrors
from ftlab.training.integer_weights import BITS
from ftlab.wording import did_you_mean


def check_selection(metric: Any, defaults: Mapping[str, str], place: Place) -> str:
    """The validation metric that chooses the epoch; where none is named, the tasks' own default.

    Args:
        metric: from the file.
        defaults: name of the default metric by data set.
        place: of the metric.

    Raises:
        InputError: not of validation, or the tasks' defaults differ.
    """
    if metric is None:
        if len(set(defaults.values())) > 1:
            named = ", ".join(f"{dataset} by {name}" for dataset, name in defaults.items())
            raise InputError(f"{place}: no metric is named, and the data sets' tasks would choose "
                             f"epochs differently: {named}",
                             "name one that all of them have, select_by: val/loss for instance")
        return f"val/{next(iter(defaults.values()))}"
    if not str(metric).startswith("val/"):
        raise InputError(
            f"{place}: {str(metric)!r} is not a validation metric",
            "epochs are selected on validation: val/accuracy, val/f1_macro, val/loss, ...")
    return str(metric)


def check_baseline(name: Any, techniques: Sequence[str], place: Place) -> str:
    """The technique that the question compares the others with; empty for none.

    Raises:
        InputError: the study has no such technique.
    """
    name = text_of(name)
    if name is not None and name not in techniques:
        raise InputError(f"{place}: the study has no technique {name!r}",
                         did_you_mean(str(name), list(techniques)))
    return name or ""


def check_groups(value: Any, datasets: Sequence[str], place: Place) -> dict[str, tuple[str, ...]]:
    """Groups of data sets: each data set of the study in exactly one.

    Raises:
        InputError: with the line of what is wrong.
    """
    if value is None:
        return {}
    groups: dict[str, tuple[str, ...]] = {}
    seen: dict[str, str] = {}
    if not isinstance(value, Mapping):
        raise InputError(f"{place}: expected a mapping, got {value!r}", "name: [a data set, ...]")
    for name, members in value.items():
        here = place / str(name)
        if not isinstance(members, list) or not members:
            raise InputError(f"{here}: expected a list of data sets", f"{name}: [{datasets[0]}]")
        chosen = tuple(map(text_of, members))
        for member in chosen:
            if member not in datasets:
                raise InputError(f"{here}: the study has no data set {member!r}",
                                 did_you_mean(member, datasets))
            if member in seen:
                raise InputError(f"{here}: {member} stands in {seen[member]} already",
                                 "a data set counts in one group")
            seen[member] = str(name)
        groups[str(name)] = chosen
    if missing := [name for name in datasets if name not in seen]:
        raise InputError(f"{place}: {', '.join(missing)} in no group",
                         "put every data set into a group, or leave the groups out")
    return groups


def check_quantized(value: Any, place: Place) -> tuple[str, ...]:
    """Names of what finished models are quantised to; none where nothing stands.

    Args:
        value: from the file.
        place: where it stands.
    """
    value = [] if value is None else value
    if not isinstance(value, list):
        raise InputError(f"{place}: expected a list, got {value!r}", f"[{', '.join(BITS)}]")
    for name in value:
        if name not in BITS:
            raise InputError(f"{place}: there is no {name!r}", did_you_mean(str(name), list(BITS)))
        if value.count(name) > 1:
            raise InputError(f"{place}: {name} stands twice", "say it once")
    return tuple(value)


def check_mirror(value: Any, place: Place | str) -> tuple[str, ...]:
    """Names of other trackers that are shown the runs; none where nothing stands.

    Raises:
        InputError: there is no such tracker.
    """
    value = [] if value is None else value
    known = list(all_mirrors())
    if not isinstance(value, list):
        raise InputError(f"{place}: expected a list, got {value!r}", f"[{', '.join(known)}]")
    for name in value:
        if name not in known:
            raise InputError(f"{place}: there is no {name!r}", did_you_mean(str(name), known))
        if value.count(name) > 1:
            raise InputError(f"{place}: {name} stands twice", "say it once")
    return tuple(value)
