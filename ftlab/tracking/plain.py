"""Turns settings into what MLflow stores: flat names, short strings, no secrets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

LONGEST_PARAM = 6000  # MLflow's limit for the value of a param
LONGEST_TAG = 5000  # the limit that every MLflow store keeps to
LONGEST_NAME = 250  # MLflow's limit for names of metrics, params and tags

REDACTED = "[redacted]"

PARAM = "param/"
"""Metrics that are settings, not measurements: they have no mean over seeds."""

_SMALLEST, _LARGEST = 1e-12, 1e16  # outside, a plain decimal has more zeros than a person counts
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
# Studies name our classes by their last word; charts would cut the rest.
_OWN_CLASS = re.compile(r"^ftlab\.[a-z0-9_.]+\.([A-Z]\w*)$", re.ASCII)

# `token` only at the end of a name: `hf_token` is a secret, `num_virtual_tokens`, `tokenizer` and
# `token_dropout` are hyperparameters.
_SECRET = re.compile(
    r"(token|passwd|credentials?)$|password|secret|(api|access|private)[_-]?key",
    re.IGNORECASE,
)
_USERINFO = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*://)[^/\s'\"]*@")
_QUERY = re.compile(
    r"([?&](?:[\w-]*token|password|passwd|[\w-]*secret|[\w-]*key|sig|[\w-]*signature)=)[^&\s'\"]+",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """Take user names and passwords out of the addresses in a text."""
    return _QUERY.sub(rf"\g<1>{REDACTED}", _USERINFO.sub(r"\1", text))


def is_secret(name: str) -> bool:
    """Whether a segment of a dotted name says that the value is a secret."""
    return any(_SECRET.search(segment) for segment in name.split("."))


def name_of(text: str) -> str:
    """The text as an MLflow name: letters, digits, `_ - . space : /`, at most 250 of them."""
    return re.sub(r"[^\w\-. :/]", "_", text, flags=re.ASCII)[:LONGEST_NAME]


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
    """
    return {
        name_of(name): REDACTED if is_secret(name) else shorten(redact(_text(value)), LONGEST_PARAM)
        for name, value in _leaves(settings, "")
    }


def numbers(params: Mapping[str, str]) -> dict[str, float]:
    """A technique's numeric arguments as metrics, which MLflow sorts and compares as numbers.

    As texts `16` comes before `4`, and `params.lr > 0.001` is refused.

    Args:
        params: of a cell, as stored.

    Returns:
        `param/lr`, `param/optim.weight_decay`, of a wrapped one `param/technique.rank`.
    """
    found = {}
    for path, text in params.items():
        if path.startswith("technique.") and _NUMBER.fullmatch(text):
            name = ".".join(part for part in path.split(".")[1:] if part != "init_args")
            found[name_of(PARAM + name)] = float(text)
    return found


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
