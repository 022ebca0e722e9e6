"""HTML in which every text is escaped, and says no secrets."""

from __future__ import annotations

import html
from collections.abc import Sequence

from ftlab.redaction import redact
from ftlab.visible import visible


class Markup(str):
    """HTML that is escaped already."""


def text(value: str) -> Markup:
    """A text as HTML; addresses lose their user names and passwords."""
    return value if isinstance(value, Markup) else Markup(html.escape(visible(redact(value))))


def tag(element: str, *children: str, **attributes: str) -> Markup:
    """An element; texts in it are escaped, `Markup` stands as it is.

    Args:
        element: its name.
        children: texts or `Markup`, in order.
        attributes: by name; `class_` is `class`, an underscore inside is a hyphen.
    """
    written = "".join(f' {name.rstrip("_").replace("_", "-")}="{text(value)}"'
                   for name, value in attributes.items())
    return Markup(f"<{element}{written}>{join(children)}</{element}>")


def join(parts: Sequence[str], between: str = "") -> Markup:
    """Texts and `Markup` one after the other."""
    return Markup(text(between).join(text(part) for part in parts))


def table(headings: list[str], lines: list[list[str]], caption: str = "") -> Markup:
    """A table that scrolls within its box where it is wider than the screen."""
    head = tag("tr", *(tag("th", heading, scope="col") for heading in headings))
    body = [tag("tr", *(tag("td", cell) for cell in line)) for line in lines]
    return tag("div", tag("table", *([tag("caption", caption)] if caption else []),
                          tag("thead", head), tag("tbody", *body)), class_="scroll")


def folded(summary: str, *children: str) -> Markup:
    """Content that a click unfolds."""
    return tag("details", tag("summary", summary), *children)
