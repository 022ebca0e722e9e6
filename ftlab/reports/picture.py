"""Figures as PNG: the same drawing gives the same bytes on one installation."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ftlab.tasks.fonts import any_script

COLUMNS = 3  # axes side by side


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """Matplotlib's own settings, whatever the machine's; names in any script are allowed."""
    with matplotlib.rc_context(rc=matplotlib.rcParamsDefault), any_script():
        yield


def grid(count: int, width: float = 5.6, height: float = 4.0) -> tuple[Figure, list[Axes]]:
    """A figure of `count` axes in rows of three, each `width` x `height` inches."""
    columns = min(count, COLUMNS)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(rows, columns, place) for place in range(1, count + 1)]


def png(figure: Figure) -> bytes:
    """The figure, without time or software in it."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150, metadata={"Software": None})
    return file.getvalue()
