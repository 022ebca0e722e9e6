"""The table as text, before any format: headings, groups of lines, footnotes, caption."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from ftlab.reports.comparison import Comparison
from ftlab.reports.metric_text import digits, is_percent
from ftlab.reports.rows import Row
from ftlab.reports.verdict import bold

NONE = "-"

@dataclass(frozen=True)
class Line:
    """One cell of the study: a text a column, and whether its mean is in bold."""

    texts: tuple[str, ...]
    bold: bool


@dataclass(frozen=True)
class Sheet:
    """What every format shows.

    Attributes:
        headings: one a column.
        groups: title (empty with a single group) and lines.
        notes: footnotes, numbered from 1 in the first column.
        caption: says what the numbers are.
    """

    headings: tuple[str, ...]
    groups: tuple[tuple[str, tuple[Line, ...]], ...]
    notes: tuple[str, ...]
    caption: str


def layout(
    study: str, rows: Sequence[Row], metric: str, comparisons: Sequence[Comparison] = (),
    higher_is_better: bool = True,
) -> Sheet:
    """Write the rows out; the order is theirs.

    Args:
        study: its name.
        rows: of its cells.
        metric: the one compared.
        comparisons: of its groups, which say what is in bold.
        higher_is_better: of the metric.
    """
    number = digits(metric, [row.summary.mean for row in rows])
    noted = [row for row in rows if row.note]
    time, time_unit = _time_unit(rows)
    memory, memory_unit = _memory_unit(rows)

    def line(row: Row) -> Line:
        mark = f" [{noted.index(row) + 1}]" if row.note else ""
        texts = (
            row.key.technique + mark,
            _mean(row, number),
            _interval(row, number),
            _trainable(row),
            time(row.seconds),
            memory(row.memory) if row.trainable else NONE,  # without training it has no peak
        )
        return Line(texts, row.stands)

    groups = [
        (f"{dataset} from {backbone}", tuple(map(line, members)))
        for (backbone, dataset), members in groupby(rows, key=lambda row: row.group)
    ]
    if len(groups) == 1:
        groups = [("", groups[0][1])]
    unit = ", %" if is_percent(metric) else ""
    return Sheet(
        headings=(
            "technique",
            f"{metric}{unit}: mean ± std (n)",
            "95% confidence interval",
            "trainable parameters (% of all)",
            f"training time, {time_unit}",
            f"peak memory, {memory_unit}",
        ),
        groups=tuple(groups),
        notes=tuple(f"{row.key.title}: {row.note}" for row in noted),
        caption=_caption(study, rows, metric, comparisons, higher_is_better),
    )


def _caption(study: str, rows: Sequence[Row], metric: str, comparisons: Sequence[Comparison],
             higher_is_better: bool) -> str:
    counts = sorted({row.summary.n for row in rows if row.summary.n})
    seeds = f"{counts[0]}" if len(counts) == 1 else "the"
    text = (
        f"Study {study}: {metric}, mean and standard deviation (ddof=1) over {seeds} seeds, with "
        "the 95% Student t interval of the mean over seeds. Selection on validation, tested once. "
        f"Time and memory: mean over seeds. {bold(comparisons, higher_is_better)}"
    )
    if any(row.note for row in rows):
        text += " Cells with a footnote are incomplete and not ranked."
    return text


def _mean(row: Row, number: Callable[[float], str]) -> str:
    summary = row.summary
    if not summary.n:
        return NONE
    std = number(summary.std) if math.isfinite(summary.std) else NONE
    return f"{number(summary.mean)} ± {std} ({summary.n})"


def _interval(row: Row, number: Callable[[float], str]) -> str:
    low, high = row.summary.ci_low, row.summary.ci_high
    if not math.isfinite(low):
        return NONE
    return f"[{number(low)}, {number(high)}]"


def _trainable(row: Row) -> str:
    if not math.isfinite(row.trainable):
        return NONE
    percent = f" ({row.percent:.3g}%)" if math.isfinite(row.percent) else ""
    return f"{row.trainable:,.0f}{percent}"


def _scaled(divisor: float, decimals: int) -> Callable[[float], str]:
    return lambda value: f"{value / divisor:,.{decimals}f}" if math.isfinite(value) else NONE


def _time_unit(rows: Sequence[Row]) -> tuple[Callable[[float], str], str]:
    """One unit a column, so that lines can be compared at a glance."""
    longest = max((row.seconds for row in rows if math.isfinite(row.seconds)), default=0.0)
    if longest < 600:
        return _scaled(1, 1), "s"
    return (_scaled(60, 1), "min") if longest < 36000 else (_scaled(3600, 1), "h")


def _memory_unit(rows: Sequence[Row]) -> tuple[Callable[[float], str], str]:
    most = max((row.memory for row in rows if math.isfinite(row.memory)), default=0.0)
    return (_scaled(2**20, 0), "MiB") if most < 10 * 2**30 else (_scaled(2**30, 1), "GiB")
