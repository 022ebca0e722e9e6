"""Names of classes: from raw labels, in order, and in the names of metrics."""

from __future__ import annotations

import math
import numbers
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np

from ftlab.errors import InputError
from ftlab.tracking.metric_facts import PER_CLASS
from ftlab.tracking.mlflow_values import name_of

if TYPE_CHECKING:
    from torch import Tensor

LONGEST = 100
"""Characters of a class name in a metric key; MLflow allows 250 for the whole key."""


def is_missing(value: Any) -> bool:
    """Return whether a cell holds nothing: null, or not a number."""
    whole = isinstance(value, numbers.Integral)  # which may be too large for a float
    return value is None or (isinstance(value, numbers.Real) and not whole and math.isnan(value))


def is_blank(value: Any) -> bool:
    """Return whether a cell holds nothing, white space aside."""
    return is_missing(value) or (isinstance(value, str) and not value.strip())


def class_name(label: Any, where: str) -> str:
    """The class that a raw label names: a text as it is, a number as its shortest decimal.

    Raises:
        InputError: the label is missing (None, not a number, empty), damaged, or neither a text
            nor a number.
    """
    if is_blank(label):
        raise InputError(f"{where} is missing", "fill the label in or drop the example")
    if isinstance(label, str):
        if "\ufffd" in label:
            raise InputError(f"{where}: label {label!r} has bytes in it that could not be read",
                             "mend it, or say how the file is written, as in encoding: cp1252")
        return label
    if isinstance(label, bool | np.bool_):
        return str(bool(label)).lower()
    if isinstance(label, float | np.floating) and 2**53 <= abs(float(label)) < math.inf:
        raise InputError(f"{where}: label {label!r} is too large for a float to tell it from its "
                         "neighbours", "write it as a whole number or as a text")
    if isinstance(label, numbers.Number):
        return number_name(label)
    if isinstance(label, bytes | Iterable):
        raise InputError(f"{where}: label {label!r} is of type {type(label).__name__}, where one "
                         "class is wanted", "write the name of one class, or take a task of several "
                         "labels: MultiLabel")
    return str(label)


def number_name(value: Any) -> str:
    """The shortest decimal that is a number: 1 of 1.0, 0.1 of the float32 next to it."""
    if isinstance(value, numbers.Integral):
        return str(int(value))
    if isinstance(value, Decimal):
        return plain(value)
    exact = float(value)
    if exact.is_integer():
        return str(int(exact))
    with np.errstate(over="ignore"):
        single = np.float32(exact)
    return str(single) if float(single) == exact else repr(exact)


def plain(value: Decimal) -> str:
    """A decimal without exponent, zeros at its end, and the sign of -0; nothing is rounded."""
    text = f"{value:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def unseen(what: str, name: str, classes: Sequence[str]) -> InputError:
    """The error for a class that train does not have, and the one that it may have been.

    Args:
        what: place and kind, for instance `test split, row 3: label`.
        name: of the class.
        classes: those that train has.
    """
    more = f" and {len(classes) - 10} more" if len(classes) > 10 else ""
    like = next((other for other in classes if _loose(other) == _loose(name)), None)
    hint = f", which has {like!r}" if like is not None else ""
    return InputError(f"{what} {name!r} does not occur in train{hint}",
                      "mend the label or add training examples of it; train has: "
                      f"{', '.join(classes[:10])}{more}")


def _loose(name: str) -> str:
    """A name without what is easily written otherwise: capitals, blanks, zeros in front."""
    return name.strip().casefold().lstrip("0")


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


def absent_class(metric: str, names: Sequence[str], present: Collection[str]) -> str:
    """The reason why `f1/<class>` has no value on a split without that class; else empty.

    Args:
        metric: name without split prefix, of a metric that the task has.
        names: of the classes.
        present: those of which the split has an example.
    """
    key = metric.partition("/")[2]
    name = dict(zip(metric_keys(names), names, strict=True)).get(key)
    if name is None or name in present:
        return ""
    return f"no example is of {name!r}"


def flattened(computed: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, float]:
    """Computed metrics as plain numbers; a vector over classes (C,) becomes `f1/a`, `f1/b`, ...

    A class without a value (not a number) is left out.

    Args:
        computed: values by name, `f1/<class>` for a vector; another metric with a value per class
            is treated alike.
        names: of the classes, in the vectors' order.

    Raises:
        InputError: a metric of a user's that gives neither one number nor one per class.
    """
    numbers: dict[str, float] = {}
    for name, value in computed.items():
        if value.numel() not in (1, len(names)):
            raise InputError(f"metric {name!r} gives {value.numel()} values, for {len(names)} classes",
                             "let its compute give one number, or one per class")
        # torchmetrics gives a vector of one element as a scalar
        if name.endswith(PER_CLASS) or value.numel() > 1:
            family = name.removesuffix(PER_CLASS)
            values = zip(metric_keys(names), value.reshape(-1).tolist(), strict=True)
            numbers |= {f"{family}/{key}": number for key, number in values
                        if not math.isnan(number)}
        else:
            numbers[name] = float(value)
    return numbers
