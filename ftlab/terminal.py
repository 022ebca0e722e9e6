"""Tables, bars and lines on a terminal: names show as they stand, whatever is in them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from ftlab.activity import quiet
from ftlab.visible import presentable, presentable_line


def plain_text(text: str, style: str = "") -> Text:
    """A text for rich's tables; `Text` itself would drop some of what is to be seen."""
    return Text(presentable(text), style)


UNFOLDED = 10_000
"""Columns of what is no terminal: programs read its lines whole."""


class Terminal(Console):
    """A console on which names are no markup, and content moves no cursor.

    Output that is redirected is never wrapped, unless `COLUMNS` gives it a width.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if not self.is_terminal and "COLUMNS" not in os.environ and "width" not in options:
            self.width = UNFOLDED

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does, in place of the line that says what is being done."""
        quiet()
        super().print(*objects, **options)

    def say(self, line: str, **options: Any) -> None:
        """Print one line, of a study that runs below its bars too."""
        self.print(Text(presentable_line(line)), highlight=False, **options)

    def render_str(self, text: str, *, style: str | Style = "", **options: Any) -> Text:
        """A string as it stands; `[red]` is no colour and `:cat:` no cat."""
        options |= {"markup": False, "emoji": False}
        return super().render_str(presentable(text), style=style, **options)

    def render(self, renderable: RenderableType,
               options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Whatever is shown comes through here, nested parts too."""
        if isinstance(renderable, Text) and presentable(renderable.plain) != renderable.plain:
            renderable = renderable.blank_copy(presentable(renderable.plain))
        return super().render(renderable, options)
