"""Drawing with plotly for the HTML report: traces and a grid of axes, as plain JSON."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex

from ftlab.reports.colours import Style
from ftlab.reports.figures.labels import labels, short
from ftlab.visible import visible

_DASHES = {"-": "solid", "--": "dash", "-.": "dashdot", ":": "dot"}
_SYMBOLS = {"o": "circle", "s": "square", "^": "triangle-up", "D": "diamond",
            "v": "triangle-down", "P": "cross", "X": "x"}
_LEGEND = 24  # pixels of a row of the legend, about


def text(value: str) -> str:
    """A text that plotly, which reads some HTML, shows as it is."""
    return html.escape(visible(value), quote=False)


def marker(style: Style, filled: bool = True, size: int = 10) -> dict[str, Any]:
    """A technique's marker; hollow ones keep its colour as their edge."""
    return {"symbol": _SYMBOLS[style.marker] + ("" if filled else "-open"), "color": style.colour,
            "size": size, "line": {"width": 1.5, "color": style.colour}}


def line(style: Style, width: float = 2) -> dict[str, Any]:
    """A technique's line."""
    return {"color": style.colour, "dash": _DASHES[style.line], "width": width}


def categories(names: Sequence[str]) -> dict[str, Any]:
    """A vertical axis of names at 0, 1, ..., the first on top."""
    return {"tickvals": list(range(len(names))), "ticktext": [text(name) for name in names],
            "range": [len(names) - 0.4, -0.6], "automargin": True, "showgrid": False,
            "zeroline": False}


def logarithmic(values: Iterable[float]) -> dict[str, Any]:
    """A logarithmic axis for these values, its numbers written as `10k`."""
    known = [value for value in values if math.isfinite(value) and value > 0]
    low, high = (math.floor(math.log10(min(known))), math.ceil(math.log10(max(known))))
    steps = (1, 2, 5) if high - low < 2 else (1,)
    ticks = [step * 10.0**power for power in range(low - 1, high + 2) for step in steps]
    return {"type": "log", "tickvals": ticks, "ticktext": [short(tick) for tick in ticks]}


def whole(values: Iterable[float]) -> dict[str, Any]:
    """An axis of whole numbers, as epochs and trials are: at most nine of them are written."""
    known = [int(value) for value in values]
    step = max(1, math.ceil((max(known) - min(known)) / 8))
    ticks = list(range(min(known), max(known) + 1, step))
    return {"tickvals": ticks, "ticktext": [str(tick) for tick in ticks]}


def shades(name: str) -> list[list[Any]]:
    """A colour map of matplotlib for plotly, whose own of that name may run the other way."""
    return [[n / 8, to_hex(colormaps[name](n / 8))] for n in range(9)]


class PlotlyGrid:
    """A grid of axes.

    The page arranges it again for the width it has (`page/arrange.js`), which needs `meta`.

    Args:
        titles: one a pair of axes; where all are the same it is written once.
        height: of one pair of axes, pixels.
        columns: side by side, at most.
        legend: the techniques that are named below.
        least: pixels from which a pair of axes stands beside another.
        need: pixels without which it cannot be read; a narrower page scrolls it.
        widest: pixels beyond which it grows no more; 0 for as wide as the page.
        matrix: stays about square, names below are turned where they do not fit.
    """

    def __init__(self, titles: Sequence[str], height: int = 300, columns: int = 1,
                 legend: Iterable[str] = (), *, least: int = 240, need: int = 0,
                 widest: int = 0, matrix: bool = False) -> None:
        self._traces: list[dict[str, Any]] = []
        self._named: set[str] = set()
        self._labels = labels(legend)
        columns = min(columns, len(titles))
        if len(set(titles)) == 1:
            titles = [titles[0], *[""] * (len(titles) - 1)]
        self._rows = math.ceil(len(titles) / columns)
        below = 30 + _LEGEND * math.ceil(len(self._labels) / 3)
        each = height + 90  # with the title above and the numbers and the title below
        self.layout: dict[str, Any] = {
            "height": self._rows * each + below,
            "margin": {"l": 60, "r": 20, "t": 40, "b": 50 + below},
            "showlegend": bool(self._labels), "annotations": [],
            "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom",
                       "x": 0, "xanchor": "left"},
            "plot_bgcolor": "white", "paper_bgcolor": "white", "hovermode": "closest",
            "meta": {"panels": len(titles), "height": height, "columns": columns, "least": least,
                     "need": need, "widest": widest, "matrix": matrix},
        }
        gap = 90 / (each * self._rows)
        tall, wide = (1 - gap * (self._rows - 1)) / self._rows, (1 - 0.12 * (columns - 1)) / columns
        for place, title in enumerate(titles):
            row, column = divmod(place, columns)
            top, left = 1 - row * (tall + gap), column * (wide + 0.12)
            self._axes(place, left, wide, top, tall)
            self.layout["annotations"].append({
                "text": text(title), "x": left + wide / 2, "y": top, "xref": "paper",
                "yref": "paper", "xanchor": "center", "yanchor": "bottom", "showarrow": False,
                "font": {"size": 14}})

    def _axes(self, place: int, left: float, wide: float, top: float, tall: float) -> None:
        number = _number(place)
        shared = {"gridcolor": "#e5e5e5", "zerolinecolor": "#cccccc", "linecolor": "#888888",
                  "showline": True}
        self.layout[f"xaxis{number}"] = shared | {
            "domain": [left, min(left + wide, 1.0)], "anchor": f"y{number}"}
        self.layout[f"yaxis{number}"] = shared | {
            "domain": [max(top - tall, 0.0), top], "anchor": f"x{number}", "automargin": True}

    def add(self, place: int, technique: str | None = None, /, **trace: Any) -> None:
        """A trace on one pair of axes; of a technique, the first is named in the legend."""
        trace |= {"xaxis": f"x{_number(place)}", "yaxis": f"y{_number(place)}"}
        shown = trace.pop("named", True) and technique in self._labels
        if technique is not None and technique in self._labels:
            trace |= {"legendgroup": text(technique), "name": text(self._labels[technique]),
                      "showlegend": shown and technique not in self._named}
        else:
            trace["showlegend"] = False
        if shown and technique is not None:
            self._named.add(technique)
        self._traces.append(trace)

    def note(self, place: int, y: float, said: str) -> None:
        """A text in one pair of axes, at its left edge."""
        self.layout["annotations"].append({
            "text": text(said), "xref": f"x{_number(place)} domain", "yref": f"y{_number(place)}",
            "x": 0.01, "y": y, "xanchor": "left", "showarrow": False, "font": {"size": 11}})

    def axis(self, which: str, place: int, title: str, **settings: Any) -> None:
        """Title and settings of an `x` or `y` axis."""
        axis = self.layout[f"{which}axis{_number(place)}"]
        axis |= {"title": {"text": text(title)}} | settings

    def done(self) -> dict[str, Any]:
        """Plotly's `data` and `layout`; what is no finite number is null."""
        found: dict[str, Any] = _json({"data": self._traces, "layout": self.layout})
        return found


def _number(place: int) -> str:
    return "" if place == 0 else str(place + 1)


def _json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _json(inner) for name, inner in value.items()}
    if isinstance(value, np.ndarray):
        return _json(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_json(inner) for inner in value]
    if isinstance(value, np.generic):
        return _json(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
