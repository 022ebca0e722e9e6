"""Names that a study file gives: of the study, and of its backbones, data sets and techniques."""

from __future__ import annotations

import re
from typing import Any

from ftlab.errors import InputError
from ftlab.studies.yaml_schema import text_of

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


def check_name(name: Any, place: object) -> str:
    """A name that can be a folder and a tag; a number is the digits that the file shows.

    Raises:
        InputError: it is none.
    """
    name = text_of(name)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InputError(
            f"{place}: {name!r} is not a name",
            "letters of a to z, digits, '.', '_' and '-', at most 80, a letter or digit first",
        )
    return name
