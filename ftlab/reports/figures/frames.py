"""Walks over a drawing's data; pandas cannot say what its columns hold."""

from __future__ import annotations

from typing import Any

import pandas as pd


def lines_of(frame: pd.DataFrame) -> list[Any]:
    """Each line, with its columns as attributes."""
    return list(frame.itertuples())


def parts(frame: pd.DataFrame, *by: str) -> list[tuple[Any, pd.DataFrame]]:
    """Value, or tuple of values, and lines of each part, in the order of the data."""
    return list(frame.groupby(list(by) if len(by) > 1 else by[0], sort=False))
