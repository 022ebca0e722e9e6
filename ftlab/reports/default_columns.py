"""The columns that a study's table has unless others are chosen."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ftlab.reports import against_baseline, collapses, levels, verdicts
from ftlab.reports.cell_summary import CellSummary
from ftlab.reports.comparison import Comparison
from ftlab.reports.diagnoses.base import matters
from ftlab.reports.metric_text import cost, digits
from ftlab.reports.sentences import across, bold, draws, ranged, ties, tuning
from ftlab.reports.study_results import StudyResults
from ftlab.reports.table import (
    NONE,
    Column,
    Quantity,
    Table,
    group_title,
    interval,
    plain,
    quantity,
    tabulate,
)
from ftlab.statistics.seed_summary import Summary
from ftlab.tracking.metric_range import is_percent
from ftlab.wording import listed

SELECTION = "The epoch is selected on validation; the test split was touched once."
COSTS = "Means over seeds."
MOST = 8
"""Cells whose medians are named."""
INCOMPLETE = "Cells with a footnote are neither ranked nor tested."
BUT_DAMAGED = INCOMPLETE.replace(" are", ", but for those with damaged predictions, are")


def default_table(results: StudyResults) -> Table:
    """The cells of a study by its own metric, in the order of its rows.

    Args:
        results: compared.
    """
    rows, metric = results.rows, results.metric
    number = digits(metric, [row.summary.mean for row in rows])
    time, time_unit = cost("cost/train_seconds", [row.seconds for row in rows])
    memory, memory_unit = cost("cost/peak_memory_bytes", [row.memory for row in rows])
    unit = ", %" if is_percent(metric) else ""
    columns: tuple[Column[CellSummary], ...] = (
        Column(f"{metric}{unit}: mean ± std (n)", lambda row: quantity(row.summary, number),
               lambda row: row.stands),
        Column("95% confidence interval", lambda row: interval(row.summary, number)),
        Column("trainable parameters (% of all)", _trainable),
        Column(f"training time, {time_unit}", lambda row: plain(row.seconds, time)),
        # without training it has no peak
        Column(f"peak memory, {memory_unit}",
               lambda row: plain(row.memory, memory) if row.trainable else NONE),
    )
    where = f"{metric} on the test split" if metric.startswith("test/") else metric
    return tabulate(
        rows, columns, name=lambda row: row.key.technique, title=lambda row: group_title(row.group),
        notes=lambda row: (f"{row.key.title}: {row.footnote}",) if row.footnote else (),
        caption=f"Study {results.study}: {where}, {_seeds(rows)}.", about=_about(results))


def _seeds(rows: Sequence[CellSummary]) -> str:
    """`over 3 seeds`, `over 2 to 3 seeds`."""
    counts = {row.summary.n for row in rows if row.summary.n} or {0}
    return f"over {ranged(counts)} seed{'s' * (counts != {1})}"


def _about(results: StudyResults) -> tuple[tuple[str, str], ...]:
    comparisons, upwards = results.comparisons, results.higher_is_better
    noted = any(row.note for row in results.rows)
    remarked = any(row.remark for row in results.rows)
    summaries = [(row.key.technique, row.summary) for row in results.rows]
    texts = (("Numbers", numbers(summaries)), ("Selection", SELECTION),
             ("Tuning", tuned(results)), ("Costs", COSTS),
             ("Bold", bold(comparisons, upwards)), ("Draws", draws(comparisons)),
             ("Baseline", _baseline(comparisons, results.metric)),
             ("Verdicts", verdicts.method(comparisons, results.metric)), ("Ties", ties(comparisons)),
             ("Price", verdicts.price(comparisons, results.records.values())),
             ("Collapses", collapses.sentences(results.rows)),
             ("Medians", _medians(results.rows, results.metric)),
             ("Over levels", " ".join(levels.sentences(results))),
             ("Over data sets", across(levels.apart(comparisons, results), upwards)),
             ("Incomplete", incomplete(noted, remarked)))
    return tuple((term, text) for term, text in texts if text)


def tuned(results: StudyResults) -> str:
    """The note on a tuned study's numbers; empty where it is not tuned."""
    return tuning(results.tuned, {run.seed for key in results.keys for run in results.runs(key)})


def numbers(summaries: Sequence[tuple[str, Summary]]) -> str:
    """Say what stands behind a mean, with the intervals that there are.

    Args:
        summaries: those in the table, with the names of their techniques.
    """
    text = "Mean ± standard deviation (ddof=1) over seeds, with their number in brackets"
    kinds = [kind for kind in _SCALES if any(own.interval == kind for _, own in summaries)]
    if kinds:
        text += (". The interval is Student's t at 95% of the mean over seeds"
                 + listed([_SCALES[kind] for kind in kinds]))
    text += "; one seed has neither"
    equal = dict.fromkeys(name for name, own in summaries if own.interval == "Clopper-Pearson")
    if equal:
        text += (f". Where all seeds are equal ({', '.join(equal)}) it is Clopper and Pearson's over the "
                 "test examples, and says nothing of other seeds")
    if any(own.std == 0 and not own.interval for _, own in summaries):
        text += ". Seeds that are all equal have none"
    return f"{text}."


_SCALES = {"Student": "", "logit": ", its half width taken on the logit scale, so that it stays "
           "between the metric's ends", "log": ", its half width taken on the log scale, so that it "
           "stays on its side of the metric's end"}


def _medians(rows: Sequence[CellSummary], metric: str) -> str:
    """Medians of the cells whose mean lies elsewhere; more than MOST are counted."""
    apart = [row for row in rows if matters(metric, abs(row.median - row.summary.mean), row.summary.mean)]
    number = digits(metric, [row.summary.mean for row in rows])
    if len(apart) > MOST:
        return f"In {len(apart)} cells mean and median part: see table.csv."
    texts = [f"{row.key.technique if len({row.group for row in rows}) == 1 else row.key.title} "
             f"{number(row.median)} beside a mean of {number(row.summary.mean)}" for row in apart]
    return f"{listed(texts)}." if texts else ""


def incomplete(noted: bool, remarked: bool) -> str:
    """The text below a table of which some cells have a note, some a remark; empty without notes."""
    return (BUT_DAMAGED if remarked else INCOMPLETE) if noted else ""


def _baseline(comparisons: Sequence[Comparison], metric: str) -> str:
    return " ".join([*against_baseline.sentences(comparisons, metric),
                     against_baseline.family(comparisons)])


def _trainable(row: CellSummary) -> str:
    if not math.isfinite(row.trainable):
        return NONE
    percent = f"{row.percent:.3g}%" if math.isfinite(row.percent) else ""
    return Quantity(f"{row.trainable:,.0f}", beside=percent)
