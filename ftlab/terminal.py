"""Tables, bars and lines on a terminal: names show as they stand, whatever is in them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from ftlab.visible import presentable, presentable_line


def plain_text(text: str, style: str = "") -> Text:
    """A text for rich's tables; `Text` itself would drop some of what is to be seen."""
    return Text(presentable(text), style)


class Terminal(Console):
    """A console on which names are no markup, and content moves no cursor."""

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
