"""Names of classes: from raw labels, in order, and in the names of metrics."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ftlab.errors import InputError
from ftlab.tracking.plain import name_of

if TYPE_CHECKING:
    from torch import Tensor

LONGEST = 100
"""Characters of a class name in a metric key; MLflow allows 250 for the whole key."""


def class_name(label: Any, where: str) -> str:
    """The class that a raw label names: its text.

    Raises:
        InputError: the label is missing (None, not a number, empty).
    """
    missing = label is None or (isinstance(label, float) and math.isnan(label))
    name = "" if missing else str(label)
    if not name.strip():
        raise InputError(f"{where} is missing", "fill the label in or drop the example")
    return name


def unseen(what: str, name: str, known: Sequence[str]) -> InputError:
    """The error for a class that train does not have.

    Args:
        what: place and kind, for instance `test split, row 3: label`.
        name: of the class.
        known: the classes that train has.
    """
    more = f" and {len(known) - 10} more" if len(known) > 10 else ""
    return InputError(f"{what} {name!r} does not occur in train",
                      "mend the label or add training examples of it; train has: "
                      f"{', '.join(known[:10])}{more}")


def name_order(name: str) -> tuple[bool, float, str]:
    """Sort key: numbers first and by value, then texts."""
    try:
        number = float(name)
    except ValueError:
        return True, 0.0, name
    return (False, number, name) if math.isfinite(number) else (True, 0.0, name)


def metric_keys(names: Sequence[str]) -> list[str]:
    """Class names as the last part of a metric's key, one each, all different.

    Letters of any script stay; see `name_of`. A slash would nest the key and a colon is no part of
    a file's name everywhere, so both are replaced, as is a name of dots alone.
    """
    keys: list[str] = []
    safe = [name_of(re.sub(r"[:/]|^\.+$", "_", name))[:LONGEST] for name in names]
    often = Counter(safe)
    taken = {key for key in safe if often[key] == 1}
    for i, key in enumerate(safe):
        if often[key] > 1:
            key = f"{key}_{i}"
            while key in taken:
                key += "_"
            taken.add(key)
        keys.append(key)
    return keys


def flattened(computed: Mapping[str, Tensor], vectors: Mapping[str, str],
              names: Sequence[str]) -> dict[str, float]:
    """Computed metrics as plain numbers; a vector over classes becomes `<family>/<class>`.

    Args:
        computed: values by name.
        vectors: names of those that are vectors (C,), and the family of each.
        names: of the classes, in the vectors' order.
    """
    numbers: dict[str, float] = {}
    for name, value in computed.items():
        if name in vectors:
            keys = [f"{vectors[name]}/{key}" for key in metric_keys(names)]
            # torchmetrics gives a vector of one element as a scalar
            numbers |= zip(keys, value.reshape(-1).tolist(), strict=True)
        else:
            numbers[name] = float(value)
    return numbers
