"""Turns settings into what MLflow stores: flat names, short strings, no secrets."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from ftlab.errors import InputError
from ftlab.redaction import REDACTED, is_secret, redact

LONGEST_PARAM = 6000  # MLflow's limit for the value of a param
LONGEST_TAG = 5000  # the limit that every MLflow store keeps to
LONGEST_NAME = 250  # MLflow's limit for names of metrics, params and tags

NOTHING = ("null", "[]", "{}")
"""Texts of params that are empty."""

PARAM = "param/"
"""Metrics that are settings, not measurements: they have no mean over seeds."""

_SMALLEST, _LARGEST = 1e-12, 1e16  # outside, a plain decimal has more zeros than a person counts
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
_UNNAMEABLE = re.compile(r"[^\w\-. :/]")  # to MLflow, whose pattern is the same
# Of a path: empty, `.` or `..`; and MLflow takes any name that begins with `..` for a climb.
_PART = re.compile(r"(?<![^/])(\.{0,2})(?![^/])|^(?=\.\.)")
_AT = re.compile(r"^(test|cost)@")
# Studies name our classes by their last word; charts would cut the rest.
_OWN_CLASS = re.compile(r"^ftlab\.[a-z0-9_.]+\.([A-Z]\w*)$", re.ASCII)


def name_of(text: str) -> str:
    """The text as an MLflow name: letters and digits of any script, `_ - . space : /`, at most 250.

    Another sign of ASCII becomes `_`; any other character its code (`_1f600`), so that names which
    differ in such characters stay different. The same letters are one name however Unicode
    composes them. MLflow takes a name for a path, so no part of it is empty or climbs. A metric of
    a named test set may be written `test@NAME/...`, which is `test.NAME/...`.
    """
    composed = unicodedata.normalize("NFC", _AT.sub(r"\1.", text))
    return _within(_PART.sub(r"_\1", _UNNAMEABLE.sub(_code_of, composed)))


def _spelled(text: str) -> str:
    """The same with the codes of ASCII's signs too, for names that would be alike."""
    composed = unicodedata.normalize("NFC", text)
    return _within(_PART.sub(r"_\1", _UNNAMEABLE.sub(lambda sign: f"_{ord(sign[0]):x}", composed)))


def _code_of(sign: re.Match[str]) -> str:
    return "_" if sign[0].isascii() else f"_{ord(sign[0]):x}"


def _within(name: str) -> str:
    """The name, or where it is too long its beginning and a digest of all."""
    if len(name) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: LONGEST_NAME - 9].rstrip('/')}_{digest}"


def shorten(text: str, longest: int) -> str:
    """The text, cut with an ellipsis where it is too long."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def tag_values(tags: Mapping[str, Any]) -> dict[str, str]:
    """Tags as MLflow stores them, without secrets."""
    return {
        name_of(name): REDACTED if is_secret(name) else shorten(redact(str(value)), LONGEST_TAG)
        for name, value in tags.items()
    }


def flatten(settings: Mapping[str, Any]) -> dict[str, str]:
    """A nested mapping as dotted names and strings, without secrets.

    A list is one value, written as JSON; so is an empty mapping. MLflow sorts params as texts, so
    numbers are plain decimals (0.00005 before 0.001), and of a class of ours its name alone.

    Raises:
        InputError: two settings would have one name.
    """
    leaves = list(_leaves(settings, ""))
    often = Counter(name_of(path) for path, _ in leaves)
    flat: dict[str, str] = {}
    paths: dict[str, str] = {}
    for path, value in leaves:
        name = name_of(path) if often[name_of(path)] == 1 else _spelled(path)
        if name in flat:
            raise InputError(f"{paths[name]!r} and {path!r} are one name to MLflow, {name!r}",
                             "rename one of the two")
        paths[name] = path
        flat[name] = REDACTED if is_secret(path) else shorten(redact(_text(value)), LONGEST_PARAM)
    return flat


def numbers(params: Mapping[str, str]) -> dict[str, float]:
    """A technique's numeric arguments as metrics, which MLflow sorts and compares as numbers.

    As texts `16` comes before `4`, and `params.lr > 0.001` is refused.

    Args:
        params: of a cell, as stored.

    Returns:
        `param/lr`, `param/optim.weight_decay`, of a wrapped one `param/technique.rank`.
    """
    values = {}
    for path, text in params.items():
        if path.startswith("technique.") and _NUMBER.fullmatch(text):
            name = ".".join(part for part in path.split(".")[1:] if part != "init_args")
            values[name_of(PARAM + name)] = float(text)
    return values


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and (value or not path):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _text(value: Any) -> str:
    if isinstance(value, str):
        return _OWN_CLASS.sub(r"\1", value)
    if isinstance(value, float) and _SMALLEST <= abs(value) < _LARGEST:
        return format(Decimal(repr(value)), "f")
    return json.dumps(_without_secrets(value), ensure_ascii=False, sort_keys=True, default=str)


def _without_secrets(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            str(key): REDACTED if is_secret(str(key)) else _without_secrets(inner)
            for key, inner in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_without_secrets(inner) for inner in value]
    return value


def objective(name: str) -> str:
    """The metric that holds what a trial gave for an objective.

    Not the objective's own name: of `val/accuracy` MLflow calls the last epoch's value the latest,
    and what counts is the best epoch's, or the mean over seeds.
    """
    return f"objective/{name}"
