"""A study's entries: what each names, held to its class, as plain data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ftlab.data.examples import checked as names
from ftlab.errors import InputError
from ftlab.studies.check_cache import remembered
from ftlab.studies.components import (
    Component,
    arguments_of,
    check,
    check_keys,
    check_plain,
    task_of,
)
from ftlab.studies.discover import FAMILIES, family
from ftlab.studies.yaml_file import Place
from ftlab.training.trainer_settings import TrainerSettings
from ftlab.wording import did_you_mean

AXES = {"backbones": "backbones", "datasets": "data", "techniques": "techniques"}
"""The study's axes and the rooms of their classes."""
BESIDE = ("trainer", "on", "by_seed", "before")
"""Keys of a technique's entry beside its class and arguments."""
BY_SEED = ("init_args", "on")
"""Keys of what a technique's entry has by seed."""
STAGE = ("technique", "data", "trainer", "select_by", "carry")
"""Keys of a stage."""


def checked(
    axes: Mapping[str, Mapping[str, Any]], common: Mapping[str, Any], place: Place,
    allow: Sequence[str],
) -> dict[str, dict[str, Any]]:
    """The checked entries of a study by axis, then name; an entry that was once checked needs no class.

    Args:
        axes: from the file.
        common: the study's trainer settings.
        place: of the study.
        allow: packages outside ftlab whose classes may be named.

    Returns:
        The checked components, `trainer` and `before` (stages) by technique, `on` (a technique
        elsewhere) by technique, then pair of data set and backbone, `by_seed` by technique, seed
        and pair, the empty one for all others, and the default `metric` of each data set's task.

    Raises:
        InputError: an entry is wrong.
    """
    parts: dict[str, dict[str, Any]] = {
        axis: {} for axis in (*AXES, "trainer", "before", "on", "by_seed", "metric")}
    pairs = [f"{d} from {b}" for b in axes["backbones"] for d in axes["datasets"]]
    for axis, entries in axes.items():
        for name, value in entries.items():
            here = place / axis / name
            if axis == "techniques" and isinstance(value, Mapping):
                settings = _trainer(common, value.get("trainer"), place, here)
                parts["trainer"][name] = settings
                parts["before"][name] = _stages(value.get("before"), settings, here, allow)
                on = mapping(value.get("on"), here / "on")
                by_seed = mapping(value.get("by_seed"), here / "by_seed")
                value = {k: v for k, v in value.items() if k not in BESIDE}
                parts["on"][name] = _elsewhere(value, on, pairs, here, allow)
                parts["by_seed"][name] = _by_seed(value, by_seed, on, pairs, here, allow)
            elif axis == "techniques":
                parts["trainer"][name] = _trainer(common, None, place, here)
                parts["before"][name] = []
            entry = _entry(axis, value, here, allow)
            parts[axis][name] = entry["component"]
            if axis == "datasets":
                parts["metric"][name] = entry["metric"]
    return parts


def _entry(axis: str, value: Any, here: Place, allow: Sequence[str]) -> dict[str, Any]:
    """The checked component of an entry, and of a data set its task's default metric."""
    base = FAMILIES[AXES[axis]]

    def entry() -> dict[str, Any]:
        if not allow:
            _check_keys(base, value, here)
        component = check(family(AXES[axis]), value, here, allow,
                          BESIDE if axis == "techniques" else ())
        metric = task_of(component).default_metric if axis == "datasets" else ""
        return {"component": component, "metric": metric}

    if not allow:
        checked_entry: dict[str, Any] = remembered(("entry", axis, value), entry)
        # others may write to a shared cache, and a class that is named there would run here
        if all(name.startswith("ftlab.") for name in _classes(checked_entry)):
            return checked_entry
    # code of others' packages is not watched for changes, and is asked each time
    plain: dict[str, Any] = json.loads(json.dumps(entry()))  # as what is remembered
    return plain


def _classes(value: Any) -> Iterator[str]:
    """Every class that is named anywhere within."""
    if isinstance(value, Mapping):
        if "class_path" in value:
            yield str(value["class_path"])
        for part in value.values():
            yield from _classes(part)
    elif isinstance(value, list):
        for part in value:
            yield from _classes(part)


def _check_keys(base: str, value: Any, here: Place) -> None:
    """Refuse a misspelt argument as `check` does, but without importing its class."""
    given = value.get("init_args") if isinstance(value, Mapping) else None
    if not isinstance(given, Mapping):
        return
    classes = remembered(("arguments", base), lambda: arguments_of(base))
    name = str(value.get("class_path"))
    parameters = classes.get(name.rpartition(".")[2] if name.startswith("ftlab.") else name)
    if parameters is None:  # `check` says so
        return
    inner = here / "init_args"
    check_keys(name.rpartition(".")[2], given, parameters, inner)
    for key, part in given.items():
        if parameters[key].startswith("ftlab."):  # others may write to a shared cache
            _check_keys(parameters[key], part, inner / key)


def _trainer(common: Mapping[str, Any], given: Any, place: Place, here: Place) -> dict[str, Any]:
    """A technique's trainer settings: the study's, overridden by its own."""
    common = _length(common, place / "trainer")
    check_plain(TrainerSettings, common, place / "trainer")
    given = _length(mapping(given, here / "trainer"), here / "trainer")
    check_plain(TrainerSettings, given, here / "trainer")
    return _laid_over(common, given, here / "trainer")


def _length(given: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """Trainer settings as they are written, which say in one way how long a fit is.

    Raises:
        InputError: in epochs and in steps.
    """
    # so that `--set trainer.max_epochs=null` takes the file's back
    written = {key: value for key, value in given.items()
               if key != "max_epochs" or value is not None}
    if written.get("max_steps") is not None and "max_epochs" in written:
        raise InputError(
            f"{place}: max_steps: {written['max_steps']} and max_epochs: {written['max_epochs']} "
            "are in conflict", "leave one of them out, or set it to null")
    return written


def _laid_over(settings: Mapping[str, Any], own: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """Trainer settings overridden by others, whose length of the fit takes the place of theirs."""
    gone: tuple[str, ...] = ()
    if own.get("max_steps") is not None:
        gone = ("max_epochs", "min_steps")
    elif "max_epochs" in own or own.get("min_steps") is not None:
        gone = ("max_steps",)
    kept = {key: value for key, value in settings.items() if key not in gone}
    return check_plain(TrainerSettings, {**kept, **own}, place)


def _stages(value: Any, settings: Mapping[str, Any], here: Place, allow: Sequence[str]
            ) -> list[dict[str, Any]]:
    """The fits before a technique's own: each a `technique`, and what it needs beside it.

    Args:
        value: a list of stages, each with the keys of `STAGE`; None for none.
        settings: of the technique's trainer, which a stage's own override.
        here: the technique's place.
        allow: packages outside ftlab whose classes may be named.
    """
    place = here / "before"
    if value is not None and not isinstance(value, list):
        raise InputError(f"{place}: expected a list of stages", "[{technique: NAME}]")
    stages = []
    for number, entry in enumerate(value or []):
        spot = place / str(number)
        entry = mapping(entry, spot)
        for key in entry:
            if key not in STAGE:
                raise InputError(f"{spot / str(key)}: unknown key", did_you_mean(key, STAGE))
        if "technique" not in entry:
            raise InputError(f"{spot}: a stage needs a technique", "technique: FullFineTuning")
        own = _length(mapping(entry.get("trainer"), spot / "trainer"), spot / "trainer")
        carry, select_by = entry.get("carry", "backbone"), entry.get("select_by")
        if carry not in ("backbone", "all"):
            raise InputError(f"{spot / 'carry'}: expected backbone or all, got {carry}",
                             "backbone leaves the stage's head behind, all keeps it")
        if select_by is not None and not str(select_by).startswith("val/"):
            raise InputError(f"{spot / 'select_by'}: {select_by!r} is not a validation metric",
                             "val/loss, for instance")
        data = entry.get("data")
        stages.append({
            "technique": _entry("techniques", entry["technique"], spot / "technique",
                                allow)["component"],
            "data": None if data is None else _entry("datasets", data, spot / "data",
                                                     allow)["component"],
            "trainer": _laid_over(settings, own, spot / "trainer"),
            "select_by": select_by, "carry": carry})
    return stages


def retained(value: Any, place: Place, allow: Sequence[str]) -> dict[str, Component]:
    """The data sets on which forgetting is measured, by name; none where nothing stands.

    Args:
        value: from the file.
        place: where it stands.
        allow: packages outside ftlab whose classes may be named.
    """
    entries = mapping(value, place)
    try:
        names("retain", entries)
    except ValueError as error:
        raise InputError(f"{place}: {error}", "give it another name") from error
    return {name: _entry("datasets", entry, place / name, allow)["component"]
            for name, entry in entries.items()}


def _elsewhere(
    value: Mapping[str, Any], on: Mapping[str, Any], pairs: Sequence[str], here: Place,
    allow: Sequence[str],
) -> dict[str, Component]:
    """A technique's other arguments on some pairs of data set and backbone."""
    components: dict[str, Component] = {}
    for pair, arguments in on.items():
        place = here / "on" / str(pair)
        if pair not in pairs:
            raise InputError(f"{place}: the study has no such pair", did_you_mean(pair, pairs))
        changed = merged(value.get("init_args") or {}, mapping(arguments, place))
        changed_entry = {**value, "init_args": changed}
        components[str(pair)] = check(family("techniques"), changed_entry, place, allow, BESIDE)
    return components


def _by_seed(
    value: Mapping[str, Any], by_seed: Mapping[str, Any], on: Mapping[str, Any], pairs: Sequence[str],
    here: Place, allow: Sequence[str],
) -> dict[str, dict[str, Component]]:
    """A technique with some seeds, by pair of data set and backbone; the empty pair is any other.

    Args:
        value: its entry.
        by_seed: other arguments, `init_args` and `on` of them, by seed.
        on: other arguments, by pair.
        pairs: of the study.
        here: its place.
        allow: packages outside ftlab whose classes may be named.
    """
    found: dict[str, dict[str, Component]] = {}
    for seed, change in by_seed.items():
        place = here / "by_seed" / str(seed)
        if not str(seed).isdecimal():
            raise InputError(f"{place}: {seed!r} is no seed", "by_seed: {3: {init_args: {lr: 0.001}}}")
        change = mapping(change, place)
        for key in change:
            if key not in BY_SEED:
                raise InputError(f"{place / str(key)}: unknown key", did_you_mean(key, BY_SEED))
        arguments = mapping(change.get("init_args"), place / "init_args")
        entry = {**value, "init_args": merged(value.get("init_args") or {}, arguments)}
        elsewhere = merged(on, mapping(change.get("on"), place / "on"))
        found[str(int(seed))] = {
            "": check(family("techniques"), entry, place, allow, BESIDE),
            **_elsewhere(entry, elsewhere, pairs, place, allow)}
    return found


def merged(under: Any, over: Any) -> Any:
    """`over` laid upon `under`, mapping by mapping; a class name turns into a mapping."""
    if not isinstance(over, Mapping):
        return over
    if isinstance(under, str) and "init_args" in over:
        under = {"class_path": under}
    if not isinstance(under, Mapping):
        return dict(over)
    keys = [*under, *(key for key in over if key not in under)]
    return {k: merged(under.get(k), over[k]) if k in over else under[k] for k in keys}


def mapping(value: Any, place: Place) -> dict[str, Any]:
    """A mapping, empty where nothing stands.

    Raises:
        InputError: it is none.
    """
    if value is not None and not isinstance(value, Mapping):
        raise InputError(f"{place}: expected a mapping", "key: value")
    return dict(value or {})
