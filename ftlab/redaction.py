"""Takes secrets out of text: those that were given in, and those that look like some."""

from __future__ import annotations

import base64
import os
import re
from functools import cache
from urllib.parse import quote, quote_plus, unquote, unquote_plus

REDACTED = "[redacted]"

# characters; a shorter one (`test`, `mlflow`) would be found in words that are none, and is taken out
# of addresses alone. A variable called PASSWORD may say no more than `true`.
_SHORTEST = 8
_ANYWHERE = 12  # from here on also in the middle of a word
_WORD = re.compile(r"[a-z]+|[0-9]+")  # below that it may be `postgres`, `accuracy` or a count

# `token` only at the end of a name: `hf_token` is a secret, `num_virtual_tokens`, `tokenizer` and
# `token_dropout` are hyperparameters.
_SECRET = re.compile(
    r"(token|passwd|credentials?)$|password|secret|(api|access|private)[_-]?key",
    re.IGNORECASE,
)
# A password may hold a slash (`me:a/b@host`), a port may not; in a path an @ is no secret's end.
_USERINFO = re.compile(
    r"([A-Za-z][A-Za-z0-9+.\-]*://)(?:[^/\s'\"@:]*:(?!\d+/)[^\s'\"]*@|[^/\s'\"]*@)")
_SETTING = re.compile(
    r"([?&;](?:[\w-]*token|[\w-]*passw(?:or)?d|pwd|[\w-]*secret|(?:[\w-]*[_-])?key"
    r"|[\w-]*(?:ssl|api|access|private|account)key|sig|[\w-]*signature)=|\bAccountKey=)"
    r"([^&;\s'\"]+)",
    re.IGNORECASE,
)
# Of libpq's `host=h user=me password='a b'`.
_PARAMETER = re.compile(r"((?<![^\s(,])(?:ssl)?password ?= ?)('(?:[^'\\]|\\.)*'|[^\s,;&)'\"]+)")
# Tokens by the beginnings that their makers gave them, at their length.
_TOKEN = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{30,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{50,}"
    r"|glpat-(?=[\w-]*[0-9])[\w-]{20,})")
_HEADER = re.compile(
    r"(\bauthorization['\"]?\s*[:=]\s*b?['\"]?(?:basic|bearer)\s+)[\w.~+/=-]+", re.IGNORECASE)

_addresses: dict[str, str] = {}
_secrets: set[str] = set()


def is_secret(name: str) -> bool:
    """Return whether a segment of a dotted name marks its value as a secret."""
    return any(_SECRET.search(segment) for segment in name.split("."))


def redact(text: str) -> str:
    """Take user names and passwords out of a text's addresses, and what `add_secret` was given."""
    for raw, shown in _addresses.items():
        text = text.replace(raw, shown)
    if _secrets:
        text = _pattern(frozenset(_secrets)).sub(REDACTED, text)
    text = _USERINFO.sub(r"\1", text)
    for pattern in (_SETTING, _PARAMETER, _HEADER):
        text = pattern.sub(rf"\g<1>{REDACTED}", text)
    return _TOKEN.sub(REDACTED, text)


def add_secret(secret: str, user: str = "") -> None:
    """Take a secret out from now on, however a library quotes it.

    Args:
        secret: as it was given, which may be percent-encoded.
        user: whose password it is.
    """
    plain = unquote(secret)
    forms = {secret, plain, unquote_plus(secret)}
    forms |= {encode(form, safe="", errors="surrogatepass") for form in list(forms) for encode in (quote, quote_plus)}
    forms |= {repr(form)[1:-1] for form in list(forms)}
    _secrets.update(form for form in forms if len(form) >= _ANYWHERE
                    or (len(form) >= _SHORTEST and not _WORD.fullmatch(form)))
    if user:  # as HTTP sends it
        both = f"{unquote(user)}:{plain}".encode("utf-8", "surrogatepass")
        _secrets.add(base64.b64encode(both).decode())


def add_address(raw: str, shown: str) -> None:
    """Show an address in another form from now on."""
    if raw != shown:
        _addresses[raw] = shown
    else:  # it was not understood before, and shown in part
        _addresses.pop(raw, None)


def add_environment() -> None:
    """Take the secrets of this process's environment out, those of addresses in it too."""
    for name, value in os.environ.items():
        for setting in (*_SETTING.finditer(value), *_PARAMETER.finditer(value)):
            add_secret(setting[2].strip("'"))
        if is_secret(name):
            if not os.path.exists(value):  # a file of credentials is named by its path
                add_secret(value)
        elif "://" in value and "@" in value:
            user, colon, password = value.partition("://")[2].rpartition("@")[0].partition(":")
            add_secret(password if colon else user, user if colon else "")


@cache
def _pattern(secrets: frozenset[str]) -> re.Pattern[str]:
    """The longest first, since one may be the beginning of another."""
    forms = [re.escape(form) if len(form) >= _ANYWHERE else rf"(?<!\w){re.escape(form)}(?!\w)"
             for form in sorted(secrets, key=len, reverse=True)]
    return re.compile("|".join(forms))
