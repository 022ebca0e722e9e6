"""The line that says what a command is doing before it has something to print; on a terminal alone."""

from __future__ import annotations

import os
import sys

from ftlab.visible import beneath, presentable_line

_ERASED = "\r\x1b[K"
_shown = False


def doing(text: str) -> None:
    """Show what takes time now, in place of what was shown before.

    The line stands on stderr, so that redirected output never has it, and goes as soon as
    something else is printed (`quiet`).
    """
    global _shown
    stream = beneath(sys.stderr)
    if not stream.isatty():
        return
    columns = os.get_terminal_size(stream.fileno()).columns or 80  # 0 where nobody has set them
    stream.write(f"{_ERASED}{presentable_line(text)[: columns - 4]}...")
    stream.flush()
    _shown = True


def quiet() -> None:
    """Take the line away."""
    global _shown
    if _shown:
        stream = beneath(sys.stderr)
        stream.write(_ERASED)
        stream.flush()
        _shown = False
