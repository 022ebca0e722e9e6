"""Drawing with matplotlib: a grid of axes, legends, and files that are always the same."""

from __future__ import annotations

import contextlib
import io
import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from ftlab.reports.colours import Style
from ftlab.reports.figures.labels import labels, short
from ftlab.tasks.fonts import any_script

DPI, MOST_PIXELS = 150, 16_000_000  # hundreds of panels would take half a gigabyte
_NARROW = 4.0  # inches
_PAPER = 1000.0  # inches: no limit
_SQUEEZE = 0.8  # of its width, which axes keep that stand beside others
SPREAD = 20  # largest over smallest, from which an axis is logarithmic
_SETTINGS: Any = {
    "text.parse_math": False,  # a name with dollars is a name
    "pdf.fonttype": 42,  # TrueType: journals refuse Type 3
    "font.size": 9, "axes.titlesize": 10, "axes.labelsize": 9, "legend.fontsize": 9,
    "xtick.labelsize": 8, "ytick.labelsize": 8,
    "axes.grid": True, "grid.alpha": 0.3, "axes.axisbelow": True,
    "axes.spines.top": False, "axes.spines.right": False,
    "legend.frameon": False, "figure.constrained_layout.use": False,
}


@contextlib.contextmanager
def paper(width: float = _PAPER) -> Iterator[None]:
    """The look of all figures, whatever the machine's settings; hold it while they are drawn.

    Args:
        width: inches that a figure may have; `canvas` puts as many axes side by side as fit.
    """
    with (matplotlib.rc_context(rc=matplotlib.rcParamsDefault), any_script(),
          matplotlib.rc_context(rc=_SETTINGS | {"figure.figsize": (width, width)})):
        yield


def canvas(counts: Sequence[int], columns: int, width: float, height: float
           ) -> tuple[Figure, list[Axes]]:
    """A figure of axes of `width` x `height` inches each.

    Args:
        counts: of axes that belong together; each such group begins a row.
        columns: most axes side by side; fewer where the page is narrower.
        width: of one; the page's where it is narrower.
        height: of one.
    """
    room = matplotlib.rcParams["figure.figsize"][0]
    columns = max(1, min(columns, max(counts), int(room / (_SQUEEZE * width))))
    width = min(width, room / columns)
    rows = [math.ceil(count / columns) for count in counts]
    figure = Figure(figsize=(max(width * columns, min(_NARROW, room)), height * sum(rows)),
                    layout=ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.08))
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(sum(rows), columns)
    return figure, [
        figure.add_subplot(grid[sum(rows[:group]) + place // columns, place % columns])
        for group, count in enumerate(counts) for place in range(count)]


def leftmost(axes: Axes) -> bool:
    """True where nothing is left of the axes, so that names are written there."""
    spec = axes.get_subplotspec()
    return spec is None or spec.is_first_col()


def narrow(axes: Axes) -> bool:
    """True in figures for phones, which have no room for names on both sides."""
    figure = axes.get_figure(root=True)
    return figure is not None and figure.get_figwidth() < _NARROW


def legend(figure: Figure, looks: Mapping[str, Style], lines: bool = False,
           more: Mapping[str, Line2D] | None = None) -> None:
    """Techniques, and other marks, below all axes.

    Args:
        figure: to draw it on, made by `canvas`.
        looks: of the techniques that the figure shows.
        lines: whether their lines are shown too.
        more: other marks by their text.
    """
    texts = [*labels(looks).values(), *(more or {})]
    handles = [Line2D([], [], color=look.colour, marker=look.marker, markersize=6,
                      linestyle=look.line if lines else "none") for look in looks.values()]
    handles += (more or {}).values()
    inches = figure.get_figwidth()
    column = (0.8 if lines else 0.55) + 0.068 * max(map(len, texts))  # inches, as measured
    made = figure.legend(handles, [str(n) for n in range(len(handles))],
                         loc="outside lower center", handlelength=3.2 if lines else 1.5,
                         ncols=max(1, int(inches / column)))
    for place, text in zip(made.get_texts(), texts, strict=True):
        place.set_text(text)  # set later: what begins with _ would be left out
    rows = math.ceil(len(texts) / max(1, int(inches / column)))
    figure.set_figheight(figure.get_figheight() + 0.2 * rows)


def names(axes: Axes, texts: Sequence[str], shown: bool = True) -> None:
    """Names along the y axis, the first on top; not `shown` where other axes have them."""
    axes.set_yticks(range(len(texts)), texts if shown else [""] * len(texts))
    axes.set_ylim(len(texts) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")


def logarithmic(axes: Axes, values: Sequence[float]) -> None:
    """An x axis of powers of ten, written as `10k`; where a value is 0, linear from it to the smallest."""
    positive = [value for value in values if value > 0]
    axis = axes.xaxis
    if len(positive) == len(values):
        axes.set_xscale("log")
        decades = math.log10(max(positive) / min(positive))
        axis.set_major_locator(LogLocator(numticks=6))
        if decades < 1.5:
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=6))
        axis.set_minor_locator(NullLocator())  # a figure of many ticks takes seconds
    else:
        low = math.floor(math.log10(min(positive)))
        high = math.ceil(math.log10(max(positive)))
        axes.set_xscale("symlog", linthresh=10.0**low, linscale=0.5)
        step = max(1, math.ceil((high - low) / 5))
        axis.set_ticks([0, *(10.0**power for power in range(low, high + 1, step))])
        axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def spread(values: Sequence[float]) -> bool:
    """True where the values need a logarithmic axis."""
    positive = [value for value in values if value > 0]
    return bool(positive) and max(positive) > SPREAD * min(positive)


def ink(colour: tuple[float, float, float, float]) -> str:
    """Black or white, whichever is read on a colour (luminance of ITU-R BT.709)."""
    red, green, blue, _ = colour
    return "black" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.45 else "white"


def files(figure: Figure) -> dict[str, bytes]:
    """Suffix -> content: the same drawing gives the same bytes on one installation."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once for both
    pdf = io.BytesIO()
    # `savefig` would draw everything twice for each
    image = png(figure)
    FigureCanvasPdf(figure).print_pdf(
        pdf, metadata={"Creator": None, "Producer": None, "CreationDate": None})
    return {"png": image, "pdf": pdf.getvalue()}


def png(figure: Figure) -> bytes:
    """The figure, without time or software in it."""
    file = io.BytesIO()
    area = float(np.prod(figure.get_size_inches()))
    figure.set_dpi(min(DPI, math.sqrt(MOST_PIXELS / area)))
    FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})
    return file.getvalue()


def svg(figure: Figure, name: str) -> str:
    """An `<svg>` element without background, its letters as outlines.

    Args:
        figure: drawn on a `canvas`.
        name: begins every id, since ids are those of the whole page.
    """
    figure.patch.set_visible(False)
    for axes in figure.axes:
        axes.patch.set_visible(axes.get_facecolor() != (1.0, 1.0, 1.0, 1.0))
    _wrap(figure)
    file = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        FigureCanvasSVG(figure).print_svg(
            file, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = file.getvalue()
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "",
                  text[text.index("<svg"):], flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r"([1-9]\d*\.\d\d)\d+", r"\1", text.replace("xlink:href", "href"))  # a hundredth of a point
    return re.sub(r"\n\s*", "\n", text).strip()


def _wrap(figure: Figure) -> None:
    """Break titles of axes that would reach beyond the figure."""
    figure.draw_without_rendering()
    for axes in figure.axes:
        for text in (axes.title, axes.xaxis.label):
            box = text.get_window_extent()
            middle = (box.x0 + box.x1) / 2
            room = 1.9 * min(middle, figure.bbox.width - middle)  # and a margin
            if box.width > room:
                letters = int(len(text.get_text()) * room / box.width)
                text.set_text(textwrap.fill(text.get_text(), max(letters, 12)))
