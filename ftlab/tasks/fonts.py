"""Fonts for names in any script: those of the machine stand in for letters that matplotlib's own lacks."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from functools import cache

import matplotlib

OWN = "DejaVu Sans"  # comes with matplotlib: Latin, Greek, Cyrillic, Arabic, Hebrew, Armenian, ...
_OTHERS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR",
    "Source Han Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback",
    "PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo", "Microsoft YaHei", "Yu Gothic",
    "Malgun Gothic", "SimHei", "Noto Sans", "Noto Sans Devanagari", "Noto Sans Bengali",
    "Noto Sans Tamil", "Noto Sans Telugu", "Noto Sans Thai", "Noto Sans Ethiopic",
    "Noto Sans Symbols 2", "Noto Emoji", "Nirmala UI", "Leelawadee UI", "Arial Unicode MS", "Unifont",
)


@contextlib.contextmanager
def any_script() -> Iterator[None]:
    """Draw and write names in any script; a letter that no font here has becomes a box."""
    with matplotlib.rc_context({"font.family": _families()}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        yield


@cache  # the machine's fonts are looked through once
def _families() -> list[str]:
    from matplotlib.font_manager import fontManager  # its list takes a second to read

    installed = {font.name for font in fontManager.ttflist}
    return [OWN, *(name for name in _OTHERS if name in installed)]
