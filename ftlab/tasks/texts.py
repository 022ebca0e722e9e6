"""Cells that must hold a text, and what is said of those that do not."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np

from ftlab.errors import InputError
from ftlab.tasks.class_names import is_missing


def text_of(value: Any, where: str, what: str = "text", argument: str | None = None) -> str:
    """A cell's text.

    Args:
        value: from a table.
        where: its place, for messages.
        what: is wanted, for instance `transcript`.
        argument: of the data module, which names the column; None where there is none.

    Raises:
        InputError: it is missing, empty, a number or something else.
    """
    column = f"name the column of the {what} with {argument}:" if argument else ""
    if is_missing(value):
        raise InputError(f"{where}: the {what} is missing", "fill it in or remove the example")
    if isinstance(value, numbers.Number | np.bool_):
        raise InputError(f"{where}: {value!r} instead of a {what}", " or ".join(filter(None, (
            f'write it in quotes, "{value}", so that it is a text', column))))
    if not isinstance(value, str):
        raise InputError(f"{where}: {type(value).__name__} instead of a {what}",
                         column or f"write the {what} as one text")
    if not value.strip():
        raise InputError(f"{where}: the {what} is empty", "fill it in or remove the example")
    return value
