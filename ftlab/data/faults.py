"""Faults of a source's files, gathered: a user sees all of them at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from ftlab.errors import InputError

T = TypeVar("T")
SHOWN = 10
"""Faults that a message names; of the others it says how many they are."""


class ManyFaults(InputError):
    """Several faults in one line.

    Args:
        what, mend: as in `FtlabError`.
        errors: the faults; empty in another process.
    """

    def __init__(self, what: str, mend: str = "", errors: Sequence[InputError] = ()) -> None:
        super().__init__(what, mend)
        self.errors = list(errors)


def gathered(what: str, make: Callable[..., T], *columns: Iterable[Any]) -> list[T]:
    """The list of `map(make, *columns)`, or one error for all that `make` raises.

    Args:
        what: what is made, for the message: "images".
        make: raises `InputError` where an example is faulty.
        columns: its arguments.

    Raises:
        InputError: with the first ten faults and the number of the others.
    """
    made: list[T] = []
    errors: list[InputError] = []
    for arguments in zip(*columns, strict=True):
        try:
            made.append(make(*arguments))
        except ManyFaults as error:
            errors += error.errors
        except InputError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        named = "; ".join(error.what for error in errors[:SHOWN])
        more = f"; and {len(errors) - SHOWN} more" if len(errors) > SHOWN else ""
        raise ManyFaults(f"{len(errors)} {what} cannot be used: {named}{more}",
                         "; ".join(dict.fromkeys(error.mend for error in errors)), errors)
    return made
