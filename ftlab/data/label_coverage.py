"""Carved splits that ask for nothing but what train has."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from ftlab.errors import InputError
from ftlab.tasks.base import Task


def keep_known(parts: dict[str, list[int]], labels: Sequence[Any], task: Task,
               where: str) -> None:
    """Move into train the carved examples whose labels it would lack otherwise, in place.

    For tasks without strata: several labels an example, boxes, tags. What occurs in few examples
    may be drawn into a carved split alone, where no model could predict it. (A rare label needs
    train first; Sechidis et al. 2011, https://doi.org/10.1007/978-3-642-23808-6_10, spread it over
    all splits.)

    Args:
        parts: positions of train and of each carved split.
        labels: raw, of all examples.
        task: not changed.
        where: the source, for messages.

    Raises:
        InputError: a split would be left without examples.
    """
    if any(task.stratum(label) is not None for label in labels[:1]):
        return
    try:
        whole = _fitted(task, labels)
        fitted = _fitted(task, [labels[i] for i in parts["train"]])
    except InputError:  # a wrong label: `load` meets it where it is, and says so
        return
    for name in parts.keys() - {"train"}:
        moved = [i for i in parts[name] if not _knows(fitted, labels[i])]
        if not all(_knows(whole, labels[i]) for i in moved):  # wrong, and not unknown: as above
            return
        if moved and len(moved) == len(parts[name]):
            raise InputError(f"{where}: all examples drawn for {name} have labels that no other "
                             "has", "set another split: {seed: ...}, or give the splits as files "
                             "of their own")
        parts["train"] = sorted([*parts["train"], *moved])
        parts[name] = sorted({*parts[name]} - {*moved})


def _fitted(task: Task, labels: Sequence[Any]) -> Task:
    fitted = copy.deepcopy(task)
    fitted.fit(labels)
    return fitted


def _knows(task: Task, label: Any) -> bool:
    try:
        task.encode(label, "")
    except InputError:
        return False
    return True
