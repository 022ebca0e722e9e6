"""Addresses of stores and servers: parsed once, where they come in, and said without secrets."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from ftlab.errors import InputError
from ftlab.redaction import add_address, add_secret, is_secret

MEND = ("write SCHEME://USER:PASSWORD@HOST:PORT; of a password @ is %40, / is %2F, : is %3A, "
        "and an IPv6 address stands in brackets")
_FAILOVER = ("SQLAlchemy wants several hosts as "
             "postgresql://USER:PASSWORD@/DB?host=HOST1:5432&host=HOST2:5432")
_SERVERS = ("http", "https")  # of which a raw / ends user and host; databases take it as it is
_DATABASE = re.compile(  # as SQLAlchemy reads it
    r"(?:(?P<user>[^:/]*)(?::(?P<password>[^@]*))?@)?"
    r"(?P<host>\[[^/?]*\]|[^/:?]*)(?::(?P<port>[^/?]*))?(?P<path>/[^?]*)?(?:\?(?P<query>.*))?",
    re.DOTALL)
_SERVER = re.compile(
    r"(?:(?P<user>[^:/?#]*)(?::(?P<password>[^/?#]*))?@)?"
    r"(?P<host>\[[^/?#]*\]|[^/:?#@]*)(?::(?P<port>[^/?#]*))?(?P<path>/[^?#]*)?"
    r"(?:[?#](?P<query>.*))?", re.DOTALL)
_NAME = re.compile(r"[^\s@\[\]'\"<>\\^`{|}%]*")  # of a host, be it of letters of another script


@dataclass(frozen=True)
class Address:
    """An address with its secrets, which `str` leaves out.

    Attributes:
        uri: all of it, to connect with.
        scheme: in small letters, without a driver.
        host: empty where there is none (a socket, a file); IPv6 without brackets.
        port: None where it is the usual one.
    """

    uri: str = field(repr=False)
    scheme: str
    host: str
    port: int | None
    shown: str

    def __str__(self) -> str:
        return self.shown


def parse(text: str, role: str) -> Address:
    """Read an address, and let no secret of it be said from now on.

    Args:
        text: `SCHEME://USER:PASSWORD@HOST:PORT/PATH?SETTINGS`.
        role: `tracking store`, for messages.

    Raises:
        InputError: it is none, without a word of its secrets.
    """
    scheme, separator, rest = text.partition("://")
    plain = scheme.split("+")[0].lower()
    # until it is understood, all that may be a secret is taken for one
    public = shown(text)
    if not separator or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        raise InputError(f"{role} {public}: not an address", MEND)
    parts = (_SERVER if plain in _SERVERS else _DATABASE).fullmatch(rest)
    if parts is None or not _is_host(parts["host"]):
        raise InputError(f"{role} {public}: no host can be read from it", MEND)
    if parts["password"]:
        add_secret(parts["password"], parts["user"])
    for name, value in parse_qsl(parts["query"] or ""):
        if is_secret(name) or name.lower() in ("pwd", "pass", "odbc_connect"):
            add_secret(value)
    port = parts["port"]
    if port and not (re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 65536):
        raise InputError(f"{role} {public}: the port is not a number from 1 to 65535",
                         _FAILOVER if "," in port else MEND)
    public = f"{scheme}://{parts['host']}{f':{port}' if port else ''}{parts['path'] or ''}"
    add_address(text, public)
    return Address(text, plain, parts["host"].strip("[]"), int(port) if port else None, public)


def shown(text: str) -> str:
    """The part without secrets of a text that should be an address or a file, whatever it is."""
    scheme, separator, rest = text.partition("://")
    if scheme.split("+")[0].lower() == "sqlite" and rest.startswith("/"):  # a path may have an @
        public = text.partition("?")[0]
        add_address(text, public)
        return public
    public = f"{scheme}{separator}{_behind(rest, scheme)}" if separator else _behind(text, "")
    add_address(text, public)
    _know_userinfo(rest if separator else text)
    return public


def _behind(text: str, scheme: str) -> str:
    """The text behind user and password, without settings; without a port that is no number."""
    _, at, after = text.rpartition("@")
    place = (after if at else text).partition("?")[0]
    host, colon, port = place.partition(":")
    kept = not colon or not (at or scheme) or port.partition("/")[0].isdecimal()
    return place if kept or place.startswith("[") else host


def _know_userinfo(text: str) -> None:
    user, colon, password = text.rpartition("@")[0].partition(":")
    if colon:
        add_secret(password, user)


def _is_host(host: str) -> bool:
    if not host.startswith("["):
        return _NAME.fullmatch(host) is not None
    try:
        ipaddress.IPv6Address(host[1:-1].partition("%")[0])
    except ValueError:
        return False
    return True
