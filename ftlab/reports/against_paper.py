"""A paper's numbers beside ours, each with a verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ftlab.reports.cell_summary import gaps
from ftlab.reports.default_columns import SELECTION
from ftlab.reports.metric_text import digits
from ftlab.reports.table import NONE, Column, Quantity, Table, interval, quantity, tabulate
from ftlab.statistics.averages import Values, over_tasks
from ftlab.statistics.seed_summary import Summary, summarise
from ftlab.studies.paper_numbers import Paper, PaperNumber
from ftlab.tracking.metric_range import is_percent, limits
from ftlab.tracking.records import CellKey, CellRecord

INSIDE, OUTSIDE = "inside the interval", "outside the interval"
NEAR, FAR = "inside the tolerance", "outside interval and tolerance"
NEAR_ONE, FAR_ONE = "one seed: inside the tolerance", "one seed: outside the tolerance"
ALONE, ABSENT, PART = "one seed: no interval", "not run", "incomplete"


@dataclass(frozen=True)
class PaperComparison:
    """One published number and ours.

    Attributes:
        ours: over seeds; of a group its mean over tasks.
        verdict: one of this module's texts.
        why: what is missing of ours.
    """

    published: PaperNumber
    ours: Summary
    verdict: str
    why: str = ""

    @property
    def what(self) -> str:
        """The data set or group, with its backbone."""
        name = self.published.dataset or f"mean of {self.published.group}"
        return f"{name} from {self.published.backbone}"

    @property
    def difference(self) -> float:
        """Ours less the paper's, in the metric's own unit; nan without ours."""
        return self.ours.mean - self.published.value


def beside(paper: Paper, keys: Sequence[CellKey], records: Mapping[CellKey, CellRecord],
           groups: Mapping[str, Sequence[str]]) -> list[PaperComparison]:
    """Each number of the paper whose technique is among the cells, with ours.

    Args:
        paper: of the study.
        keys: its cells.
        records: of those that the store has.
        groups: names of data sets by group.
    """
    cells = {(key.technique, key.backbone, key.dataset): key for key in keys}
    techniques = {key.technique for key in keys}
    comparisons = []
    for number in paper.numbers:
        if number.technique not in techniques:  # --only
            continue
        names = [number.dataset] if number.dataset else groups[number.group]
        cell_records = [records.get(cells[number.technique, number.backbone, name]) for name in names]
        comparisons.append(_beside(number, cell_records, paper))
    order = list(dict.fromkeys(row.what for row in comparisons))
    return sorted(comparisons, key=lambda row: order.index(row.what))


def _beside(number: PaperNumber, cells: Sequence[CellRecord | None], paper: Paper) -> PaperComparison:
    values = [_values(cell, paper.metric) for cell in cells]
    whys = dict.fromkeys(gaps(cell) if cell else "not run" for cell in cells)
    why = "; ".join(filter(None, whys))
    if not any(values):
        return PaperComparison(number, summarise([]), ABSENT, why or f"no finished run has {paper.metric}")
    if not all(values) or why:
        ours = over_tasks(values, limits(paper.metric))
        return PaperComparison(number, ours, PART, why or f"some run lacks {paper.metric}")
    ours = over_tasks(values, limits(paper.metric))
    return PaperComparison(number, ours, verdict(number.value, ours, paper.tolerance))


def _values(cell: CellRecord | None, metric: str) -> Values:
    """By seed; empty where a finished run lacks the metric or its value is not finite."""
    values = {run.seed: run.metrics.get(metric, math.nan) for run in (cell.finished if cell else ())}
    return values if all(map(math.isfinite, values.values())) else {}


def verdict(published: float, ours: Summary, tolerance: float | None) -> str:
    """Say whether a complete result of ours agrees with a published number.

    Inside the 95% interval of our mean over seeds, or within the tolerance of it. Of one seed, and
    of equal ones, no interval is invented, and the tolerance alone decides.
    """
    # As printed: what agrees in nine digits is equal
    distance = abs(ours.mean - published)
    near = tolerance is not None and (
        distance <= tolerance or math.isclose(distance, tolerance, rel_tol=1e-9))
    if not ours.interval:
        text = ALONE if tolerance is None else NEAR_ONE if near else FAR_ONE
        return text.replace("one seed", "equal seeds") if ours.std == 0 else text
    if ours.ci_low <= published <= ours.ci_high:
        return INSIDE
    return OUTSIDE if tolerance is None else NEAR if near else FAR


def layout(study: str, paper: Paper, comparisons: Sequence[PaperComparison]) -> Table:
    """The table: one line a published number."""
    number = digits(paper.metric, [value for row in comparisons for value
                                   in (row.published.value, row.ours.mean)])
    unit = ", %" if is_percent(paper.metric) else ""

    def difference(row: PaperComparison) -> str:
        return (Quantity(_signed(number(row.difference))) if math.isfinite(row.difference)
                else NONE)

    columns: tuple[Column[PaperComparison], ...] = (
        Column(f"paper: {paper.metric}{unit}",
               lambda row: Quantity(number(row.published.value))),
        Column(f"ours{unit}: mean ± std (n)", lambda row: quantity(row.ours, number)),
        Column("ours: 95% confidence interval", lambda row: interval(row.ours, number)),
        Column(f"difference{', points' if unit else ''}", difference),
        Column("verdict", lambda row: row.verdict))
    places = {row.what for row in comparisons}
    where = f" on {comparisons[0].what}" if len(places) == 1 else ""
    return tabulate(
        comparisons, columns, name=lambda row: row.published.technique, title=lambda row: row.what,
        notes=lambda row: (_note(row),) if _note(row) else (),
        caption=f"Study {study} against {paper.citation}: {paper.metric}{where}.",
        about=_about(paper))


def _about(paper: Paper) -> tuple[tuple[str, str], ...]:
    number = digits(paper.metric, [])
    rule = ("Inside: the published number lies in the 95% Student t interval of our mean over "
            "seeds")
    if paper.tolerance is not None:
        unit = " points" if is_percent(paper.metric) else ""
        rule += f", or our mean is within {number(paper.tolerance)}{unit} of it"
    rule += (". The interval covers seeds, not the test set, and few seeds make it wide: inside "
             "means that nothing speaks against the paper, not that it is confirmed.")
    return (("Source", f"{paper.citation}, {paper.where}, {paper.url}"),
            *((f"Protocol, {name}", text) for name, text in paper.protocol.items()),
            ("Verdict", rule), ("Selection of ours", SELECTION))


def _note(row: PaperComparison) -> str:
    parts = (row.why, f"published in {row.published.where}" if row.published.where else "")
    text = "; ".join(filter(None, parts))
    return f"{row.published.technique} on {row.what}: {text}" if text else ""


def _signed(text: str) -> str:
    return text if text.startswith("-") else f"+{text}"


def lines(study: str, paper: Paper, comparisons: Sequence[PaperComparison]) -> list[dict[str, Any]]:
    """As numbers in base units, a mapping a published number."""
    return [{
        "study": study, "backbone": row.published.backbone, "dataset": row.published.dataset,
        "group": row.published.group, "technique": row.published.technique,
        "metric": paper.metric, "paper": row.published.value, "mean": row.ours.mean,
        "std": row.ours.std, "n": row.ours.n, "ci_low": row.ours.ci_low,
        "ci_high": row.ours.ci_high, "difference": row.difference, "verdict": row.verdict,
        "where": row.published.where or paper.where, "note": row.why,
    } for row in comparisons]
