"""Text from files and stores, with what a terminal would obey instead of show made visible."""

from __future__ import annotations

import re
import sys
from typing import Any, TextIO

from ftlab.redaction import add_environment, redact

# C0 but tab and newline, DEL, C1; soft hyphen; marks of direction, which reorder a line; signs
# without width; tags, which are text that nobody sees; halves of characters, which cannot be
# encoded (a file name in another encoding has them). Joiners belong between letters of many
# scripts and between emoji, and tags to the flags of some countries: there they stay.
_OBEYED = re.compile(
    "(?P<flag>\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]+\U000e007f)"
    "|[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff0-\ufffb\U0001d173-\U0001d17a\ud800-\udfff\U000e0000-\U000e007f]"
    "|(?<![^\x00-\x7f\u200c\u200d])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f\u200c\u200d])")
_TO_A_BAR = re.compile("\n*(\x1b\\[A)+")  # as tqdm goes to the line of a nested bar, and back


def visible(text: str) -> str:
    r"""The text with `\x1b`, `\u202e` and their like written out; newlines and tabs stay.

    Letters of all scripts, combining marks and emoji are what they are.
    """
    return _OBEYED.sub(lambda sign: sign[0] if sign["flag"] else _written(sign[0]), text)


def presentable(text: str) -> str:
    """The text as it may leave this process: visible, and without passwords."""
    return visible(redact(text))


def presentable_line(text: str) -> str:
    r"""The same on one line: `\n` is written out too."""
    return presentable(text).replace("\n", r"\n")


def _written(sign: str) -> str:
    code = ord(sign)
    return f"\\x{code:02x}" if code < 0x100 else (
        f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")


class VisibleStream:
    """A text stream of which nothing but text comes out, and no password.

    A carriage return that begins a write is a progress bar's: it stays, and so does on a terminal
    a write that does nothing but go up lines. rich, whose colours and moves are its own, finds the
    stream beneath by the attribute `rich_proxied_file`.

    Args:
        beneath: the terminal, or a file.
    """

    def __init__(self, beneath: TextIO) -> None:
        self.beneath = beneath

    def write(self, text: str) -> int:
        """Write a text; its length, as of any stream."""
        if _TO_A_BAR.fullmatch(text) and self.beneath.isatty():
            self.beneath.write(text)
            return len(text)
        bar = "\r" if text.startswith("\r") and not text.startswith("\r\n") else ""
        self.beneath.write(bar + presentable(text[len(bar):]))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write texts."""
        for line in lines:
            self.write(line)

    @property
    def rich_proxied_file(self) -> TextIO:
        """The terminal, or the file."""
        return beneath(self.beneath)

    def __getattr__(self, name: str) -> Any:
        if name in ("buffer", "beneath"):  # bytes would go past; and none before there is one
            raise AttributeError(name)
        return getattr(self.beneath, name)


def beneath(stream: TextIO) -> TextIO:
    """The stream that takes escape codes; of one that is not guarded, itself."""
    while (proxied := getattr(stream, "rich_proxied_file", None)) is not None:
        stream = proxied
    return stream


def guard_streams() -> None:
    """Let nothing but text out of this process, whatever prints: libraries, logs, tracebacks.

    It stays so to the process's end, which may be a traceback. Nor are the environment's secrets
    let out.
    """
    add_environment()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, VisibleStream):
            setattr(sys, name, VisibleStream(stream))
