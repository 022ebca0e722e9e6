"""A value of an entry that takes several levels: `vary` of a study file, and the entries it makes."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ftlab.errors import InputError
from ftlab.studies.study_entries import AXES, merged
from ftlab.studies.yaml_file import Place
from ftlab.studies.yaml_schema import text_of
from ftlab.wording import did_you_mean

DRAW = "seed"
"""The last key of a path whose levels are draws of the same thing, and are averaged."""
_WORD = re.compile(r"[A-Za-z0-9._-]+")
_MOST = 1000
_PARTS = ("shots", "limit", "imbalance_ratio")
"""Arguments of a subset, of which a draw is one."""
_EXAMPLE = "datasets.NAME.init_args.subset.shots: [1, 2, 4, 8, null]"


@dataclass(frozen=True)
class Level:
    """An entry that stands at one level of what varies.

    Attributes:
        of: the entry that varies.
        values: by the last key of each path, in the file's order, `{"shots": 4, "seed": 0}`.
    """

    of: str
    values: Mapping[str, Any]

    @property
    def key(self) -> str:
        """The key along which scores are shown: the first that is not a draw; empty where there is none."""
        return next((key for key in self.values if key != DRAW), "")

    @property
    def line(self) -> str:
        """The entry, and the further values that it has."""
        others = [f"{key} {value}" for key, value in self.values.items() if key not in (DRAW, self.key)]
        return ", ".join([self.of, *others])


Levels = Mapping[str, Mapping[str, Level]]
"""By axis, then name of the entry."""


def expanded(data: Mapping[str, Any], place: Place) -> tuple[dict[str, Any], dict[str, dict[str, Level]]]:
    """Put an entry for each level in the place of one whose values vary.

    Args:
        data: of the study file, whose `vary` says which values, `levels` what was made of it before.
        place: of the study.

    Returns:
        The data without both keys, and the levels. Where levels are draws, tables average over them.

    Raises:
        InputError: with the line and the key of what is wrong.
    """
    made = {key: value for key, value in data.items() if key not in ("vary", "levels")}
    levels = _recorded(data.get("levels"), made, place / "levels")
    here = place / "vary"
    given = data.get("vary")
    if given is None:
        return made, levels
    if not isinstance(given, Mapping) or not given:
        raise InputError(f"{here}: expected paths with a list of values each", _EXAMPLE)
    by_entry: dict[tuple[str, str], dict[tuple[str, ...], dict[str, Any]]] = {}
    for path, values in given.items():
        axis, name, keys = _path(str(path), made, here / str(path))
        by_entry.setdefault((axis, name), {})[keys] = _named(values, keys, here / str(path))
    for (axis, name), paths in by_entry.items():
        entries = _entries(name, made[axis][name], paths, here)
        replaced: dict[str, Any] = {}
        for other, value in made[axis].items():
            replaced |= {key: entry for key, (entry, _) in entries.items()} if other == name else {other: value}
        if len(replaced) < len(made[axis]) - 1 + len(entries):
            raise InputError(f"{here}: the study has an entry named as one of {name}'s levels",
                             "rename the entry")
        made[axis] = replaced
        levels.setdefault(axis, {}).update({key: level for key, (_, level) in entries.items()})
    _follow(made, levels)
    return made, levels


def check_override(dotted: str, data: Mapping[str, Any]) -> None:
    """Refuse a value that is laid in and then varies all the same.

    Raises:
        InputError: `vary` has its path.
    """
    varied = data.get("vary")
    if isinstance(varied, Mapping) and dotted in map(str, varied):
        raise InputError(f"--set {dotted}: the study varies it",
                         f"give its levels: --set 'vary.{dotted}=[...]'")


def written(levels: Levels, data: Mapping[str, Any]) -> dict[str, Any]:
    """Levels as plain data for the key `levels` of a recorded study, of the entries that it has."""
    kept = {axis: {name: {"of": level.of, **level.values} for name, level in entries.items()
                   if name in data[axis]} for axis, entries in levels.items()}
    return {axis: entries for axis, entries in kept.items() if entries}


def _path(path: str, data: Mapping[str, Any], here: Place) -> tuple[str, str, tuple[str, ...]]:
    """Axis, entry and the keys below it.

    Raises:
        InputError: there is no such entry, or nothing below it is named.
    """
    axis, _, rest = path.partition(".")
    if axis not in AXES:
        raise InputError(f"{here}: no value of an entry", did_you_mean(axis, list(AXES)) + f"; {_EXAMPLE}")
    entries = data.get(axis)
    entries = entries if isinstance(entries, Mapping) else {}
    # a name may hold dots: the longest that fits
    fits = [str(name) for name in entries if rest == str(name) or rest.startswith(f"{name}.")]
    if not fits:
        raise InputError(f"{here}: {axis} has no entry of that name",
                         did_you_mean(rest.partition(".")[0], [str(name) for name in entries]))
    name = max(fits, key=len)
    keys = tuple(rest[len(name) + 1:].split("."))
    if keys == ("",):
        raise InputError(f"{here}: it names an entry, and none of its values",
                         f"{axis}.{name}.init_args.ARGUMENT: [...]")
    return axis, next(key for key in entries if str(key) == name), keys


def _named(values: Any, keys: Sequence[str], here: Place) -> dict[str, Any]:
    """Levels by the word that names them.

    Raises:
        InputError: there are none, or a value says no name.
    """
    if isinstance(values, Mapping) and values:
        named = {str(text_of(word)): value for word, value in values.items()}
    elif isinstance(values, list) and values:
        named = {_word(value, keys[-1]): value for value in values}
        if len(named) < len(values):
            raise InputError(f"{here}: a value stands twice in {values}", "list each once")
    else:
        raise InputError(f"{here}: expected a list of values, got {values!r}",
                         f"{'.'.join(keys)}: [1, 2, 4], or with names: {{few: 1, many: 64}}")
    for word in named:
        if not _WORD.fullmatch(word):
            raise InputError(f"{here}: {word[:40]!r} cannot be part of a name",
                             "name the values: {few: 1, many: 64}")
    return named


def _word(value: Any, key: str) -> str:
    if value is None:
        return "all" if key in _PARTS else "none"  # of a part, null is the whole
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def _entries(name: str, entry: Any, paths: Mapping[tuple[str, ...], Mapping[str, Any]], here: Place
             ) -> dict[str, tuple[Any, Level]]:
    """An entry for each combination of levels, by its name."""
    if len({keys[-1] for keys in paths}) < len(paths):
        raise InputError(f"{here}: two values of {name} end in the same key", "vary one of them")
    made: dict[str, tuple[Any, Level]] = {}
    for words in itertools.product(*paths.values()):
        chosen = {keys: paths[keys][word] for keys, word in zip(paths, words, strict=True)}
        changed = copy.deepcopy({"class_path": entry} if isinstance(entry, str) else entry)
        for keys, value in chosen.items():
            change: Any = value
            for key in reversed(keys):
                change = {key: change}
            changed = merged(changed, change)
        if any(_draws_nothing(changed, keys) and value != next(iter(paths[keys].values()))
               for keys, value in chosen.items()):
            continue  # it would be the same as with the first seed
        parts = [f"{keys[-1]}-{word}" for keys, word in zip(paths, words, strict=True)]
        made[".".join([name, *parts])] = (
            changed, Level(name, {keys[-1]: value for keys, value in chosen.items()}))
        if len(made) > _MOST:
            raise InputError(f"{here}: more than {_MOST:,} levels of {name}", "vary fewer values")
    return made


def _draws_nothing(entry: Any, keys: Sequence[str]) -> bool:
    """Return whether a seed is of a subset that is the whole."""
    if keys[-2:] != ("subset", DRAW):
        return False
    for key in keys[:-1]:
        entry = entry.get(key) if isinstance(entry, Mapping) else None
    return isinstance(entry, Mapping) and all(entry.get(part) is None for part in _PARTS)


def _follow(data: dict[str, Any], levels: Levels) -> None:
    """Let `groups` name an entry's levels for the entry; without any, average over draws."""
    of: dict[str, list[str]] = {}
    for name, level in levels.get("datasets", {}).items():
        of.setdefault(level.of, []).append(name)
    groups = data.get("groups")
    if isinstance(groups, Mapping):
        data["groups"] = {key: [new for name in members for new in of.get(str(name), [name])]
                          if isinstance(members, list) else members for key, members in groups.items()}
    elif any(DRAW in level.values for level in levels.get("datasets", {}).values()):
        drawn: dict[str, list[str]] = {}
        for name in data["datasets"]:
            at = levels["datasets"].get(name)
            parts = [] if at is None else [f"{key}-{_word(value, key)}" for key, value in at.values.items()
                                           if key != DRAW]
            drawn.setdefault(".".join([name if at is None else at.of, *parts]), []).append(name)
        data["groups"] = drawn


def _recorded(given: Any, data: Mapping[str, Any], here: Place) -> dict[str, dict[str, Level]]:
    """Levels that an earlier expansion made."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise InputError(f"{here}: expected axes", "datasets: {NAME: {of: NAME, shots: 4}}")
    levels: dict[str, dict[str, Level]] = {}
    for axis, entries in given.items():
        if axis not in AXES or not isinstance(entries, Mapping):
            raise InputError(f"{here / str(axis)}: expected entries of an axis",
                             did_you_mean(str(axis), list(AXES)))
        for name, level in entries.items():
            known = data.get(axis)
            if not isinstance(known, Mapping) or name not in known:
                raise InputError(f"{here / str(axis) / str(name)}: the study has no such entry",
                                 did_you_mean(str(name), [str(entry) for entry in known or ()]))
            if not isinstance(level, Mapping) or "of" not in level:
                raise InputError(f"{here / str(axis) / str(name)}: expected what it is a level of",
                                 "{of: NAME, shots: 4}")
            values = {str(key): value for key, value in level.items() if key != "of"}
            levels.setdefault(axis, {})[str(name)] = Level(str(level["of"]), values)
    return levels
