"""Differences in how two studies came about: where to look for the reason of a drift."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ftlab.reports.drift.read_results import ComparedStudy

NOTHING = "-"


def suspects(old: ComparedStudy, new: ComparedStudy) -> list[str]:
    """One line a difference: data and weights first, then settings, versions, commit, device."""
    return [*_fingerprints(old, new), *_settings(old, new), *_environments(old, new)]


def unknown(old: ComparedStudy, new: ComparedStudy) -> list[str]:
    """One line a side that does not say where it comes from."""
    texts = []
    for side in {side.label: side for side in (old, new)}.values():
        missing = [what for what, value in (("provenance", side.provenance),
                                           ("settings", side.settings)) if not value]
        if missing:
            texts.append(f"{side.label} does not say its {' and '.join(missing)}")
    return texts


def fingerprints(side: Mapping[str, Any]) -> dict[str, str]:
    """Read from a `provenance.json`: fingerprints of data sets and backbones, by `data set bbc`."""
    return {f"{word} {name}": str(value)
            for word, axis in (("data set", "datasets"), ("backbone", "backbones"))
            for name, value in dict(side.get(axis, {})).items() if value}


def _fingerprints(old: ComparedStudy, new: ComparedStudy) -> list[str]:
    a, b = fingerprints(old.provenance), fingerprints(new.provenance)
    return [f"{what}: other {'data' if what.startswith('data') else 'weights'} "
            f"({a[what][:8]} -> {b[what][:8]})" for what in a if what in b and a[what] != b[what]]


def _settings(old: ComparedStudy, new: ComparedStudy) -> list[str]:
    a, b = old.settings, new.settings
    if not a or not b:
        return []
    common = old.cells.keys() & new.cells.keys()
    parts = {"backbones": {names[0] for names in common},
             "datasets": {names[1] for names in common},
             "techniques": {names[2] for names in common}}

    def concerns(key: str) -> bool:
        """True for settings of what both sides have; names may hold dots."""
        axis, _, rest = key.partition(".")
        return axis not in parts or any(rest.startswith(f"{name}.") for name in parts[axis])

    return [f"{key}: {a.get(key, NOTHING)} -> {b.get(key, NOTHING)}"
            for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key) and concerns(key)]


def _environments(old: ComparedStudy, new: ComparedStudy) -> list[str]:
    sides = [_flat(side.provenance.get("environments", [])) for side in (old, new)]
    if not all(sides):
        return []
    a, b = sides
    return [f"{key}: {_listed(a.get(key))} -> {_listed(b.get(key))}"
            for key in sorted(a.keys() | b.keys(), key=lambda key: (key in ("commit", "device"), key))
            if a.get(key) != b.get(key)]


def _flat(environments: list[Mapping[str, Any]]) -> dict[str, set[str]]:
    """All values that the runs of a side had, by `torch`, `python`, `commit`, `device`."""
    values: dict[str, set[str]] = {}
    for environment in environments:
        rest = {key: value for key, value in environment.items() if key != "versions"}
        for key, value in {**dict(environment.get("versions", {})), **rest}.items():
            values.setdefault(str(key), set()).add(str(value))
    return values


def _listed(values: set[str] | None) -> str:
    return ", ".join(sorted(map(_short, values))) if values else NOTHING


def _short(value: str) -> str:
    """A commit's first letters, with its `+`; other values as they are."""
    commit = re.fullmatch(r"([0-9a-f]{40})(\+?)", value)
    return commit[1][:10] + commit[2] if commit else value or NOTHING
