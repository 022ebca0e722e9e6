"""The table as text, before any format: headings, groups of lines, footnotes, caption, notes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Self

from ftlab.reports import against_baseline
from ftlab.reports.cell_summary import CellSummary
from ftlab.reports.comparison import Comparison
from ftlab.reports.metric_text import cost, digits
from ftlab.reports.sentences import across, bold, ranged, ties
from ftlab.statistics.seed_summary import Summary
from ftlab.tracking.metric_range import is_percent

NONE = "-"
SPREAD = ("Mean ± standard deviation (ddof=1) over seeds, with their number in brackets. The "
          "interval is Student's t at 95% of the mean over seeds, of a share or a correlation on the "
          "logit scale, so that it stays in the metric's range; one seed has neither.")
SELECTION = "The epoch is selected on validation; the test split was touched once."
COSTS = "Means over seeds."
INCOMPLETE = "Cells with a footnote are neither ranked nor tested."
BUT_DAMAGED = INCOMPLETE.replace(" are", ", but for those with damaged predictions, are")


class Quantity(str):
    """A number as the table shows it: `95.00 ± 0.82 (3)`, and its parts for who aligns them.

    Args:
        number: the mean, `95.00`.
        spread: its standard deviation; NONE where there is none to say, empty where none is meant.
        beside: what stands in brackets behind it, `3` or `0.1%`; empty for nothing.
    """

    number: str
    spread: str
    beside: str

    def __new__(cls, number: str, spread: str = "", beside: str = "") -> Self:
        text = number + (f" ± {spread}" if spread else "") + (f" ({beside})" if beside else "")
        made = super().__new__(cls, text)
        made.number, made.spread, made.beside = number, spread, beside
        return made


@dataclass(frozen=True)
class Line:
    """One line of a table: a text a column (numbers as `Quantity`), and the columns in bold."""

    texts: tuple[str, ...]
    bold: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Sheet:
    """What every format shows.

    Attributes:
        headings: one a column.
        groups: title (empty with a single group) and lines.
        notes: footnotes, numbered from 1 in the first column.
        caption: says what the numbers are, in a sentence or two.
        about: what a reader should know besides, as term and text.
    """

    headings: tuple[str, ...]
    groups: tuple[tuple[str, tuple[Line, ...]], ...]
    notes: tuple[str, ...]
    caption: str
    about: tuple[tuple[str, str], ...] = ()


def layout(
    study: str, rows: Sequence[CellSummary], metric: str, comparisons: Sequence[Comparison] = (),
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
    footnotes = [row for row in rows if row.footnote]
    noted = {row.key: number for number, row in enumerate(footnotes, 1)}
    time, time_unit = cost("cost/train_seconds", [row.seconds for row in rows])
    memory, memory_unit = cost("cost/peak_memory_bytes", [row.memory for row in rows])

    def line(row: CellSummary) -> Line:
        mark = f" [{noted[row.key]}]" if row.footnote else ""
        texts = (
            row.key.technique + mark,
            _mean(row, number),
            _interval(row, number),
            _trainable(row),
            _cost(row.seconds, time),
            # without training it has no peak
            _cost(row.memory, memory) if row.trainable else NONE,
        )
        return Line(texts, frozenset({1} if row.stands else ()))

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
        notes=tuple(f"{row.key.title}: {row.footnote}" for row in footnotes),
        caption=f"Study {study}: {metric} on the test split, {_seeds(rows)}."
        if metric.startswith("test/") else f"Study {study}: {metric}, {_seeds(rows)}.",
        about=_about(rows, metric, comparisons, higher_is_better),
    )


def _seeds(rows: Sequence[CellSummary]) -> str:
    """`over 3 seeds`, `over 2 to 3 seeds`."""
    counts = {row.summary.n for row in rows if row.summary.n} or {0}
    return f"over {ranged(counts)} seed{'s' * (counts != {1})}"


def _about(rows: Sequence[CellSummary], metric: str, comparisons: Sequence[Comparison],
           higher_is_better: bool) -> tuple[tuple[str, str], ...]:
    said = [("Numbers", SPREAD), ("Selection", SELECTION), ("Costs", COSTS),
            ("Bold", bold(comparisons, higher_is_better)),
            ("Baseline", _baseline(comparisons, metric)), ("Ties", ties(comparisons)),
            ("Over data sets", across(comparisons, higher_is_better))]
    said.append(("Incomplete", incomplete(any(row.note for row in rows),
                                          any(row.remark for row in rows))))
    return tuple((term, text) for term, text in said if text)


def incomplete(noted: bool, remarked: bool) -> str:
    """The text below a table of which some cells have a note, some a remark; empty without notes."""
    return (BUT_DAMAGED if remarked else INCOMPLETE) if noted else ""


def _baseline(comparisons: Sequence[Comparison], metric: str) -> str:
    said = against_baseline.sentences(comparisons, metric)
    return " ".join([*said, against_baseline.family(comparisons)])


def _mean(row: CellSummary, number: Callable[[float], str]) -> str:
    return quantity(row.summary, number)


def quantity(summary: Summary, number: Callable[[float], str]) -> str:
    """`95.00 ± 0.82 (3)`; one seed has no spread, and no seed nothing."""
    if not summary.n:
        return NONE
    if not math.isfinite(summary.mean):
        return f"{NONE} ({summary.n})"
    spread = number(summary.std) if math.isfinite(summary.std) else NONE
    return Quantity(number(summary.mean), spread, str(summary.n))


def _interval(row: CellSummary, number: Callable[[float], str]) -> str:
    return interval(row.summary, number)


def interval(summary: Summary, number: Callable[[float], str]) -> str:
    """`[94.0, 96.0]`; none is invented for one seed."""
    if not math.isfinite(summary.ci_low):
        return NONE
    return f"[{number(summary.ci_low)}, {number(summary.ci_high)}]"


def _cost(value: float, number: Callable[[float], str]) -> str:
    return Quantity(number(value)) if math.isfinite(value) else NONE


def _trainable(row: CellSummary) -> str:
    if not math.isfinite(row.trainable):
        return NONE
    percent = f"{row.percent:.3g}%" if math.isfinite(row.percent) else ""
    return Quantity(f"{row.trainable:,.0f}", beside=percent)
