"""The changes between two studies, as sentences and files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path

import pandas as pd
from rich.console import Group

from ftlab.errors import InputError
from ftlab.reports.csv_files import to_csv, write_file
from ftlab.reports.drift.costs import CostChange
from ftlab.reports.drift.drift_table import cost_rows, count_of, rows, tables
from ftlab.reports.drift.metric_changes import MetricChange
from ftlab.reports.drift.rank_changes import RankChange, tau_of
from ftlab.reports.drift.read_results import ComparedStudy, Names, title
from ftlab.reports.formats import escape_markdown, markdown_groups, terminal_table
from ftlab.terminal import plain_text
from ftlab.wording import listed

MOST = 12  # differing settings and the like on the terminal; files have all


@dataclass(frozen=True)
class Drift:
    """The changes from one study to another.

    Attributes:
        old, new: the two sides.
        movements: a test per cell and metric.
        orders: rankings by the first metric.
        costs: those beyond their tolerance.
        only_old, only_new: cells that the other side lacks.
        suspects: differences in how the two came about, a line each.
        unknown: what a side does not say of that.
    """

    old: ComparedStudy
    new: ComparedStudy
    movements: tuple[MetricChange, ...]
    orders: tuple[RankChange, ...]
    costs: tuple[CostChange, ...]
    only_old: tuple[Names, ...]
    only_new: tuple[Names, ...]
    suspects: tuple[str, ...]
    unknown: tuple[str, ...]

    @property
    def moved(self) -> bool:
        """A metric beyond noise, a seed that fails, or a cost that is counted, not timed."""
        return any(m.moved for m in self.movements) or any(c.counted for c in self.costs)

    @property
    def equal(self) -> bool:
        """Every seed of every cell has the same numbers, up to rounding."""
        return all(m.equal for m in self.movements)

    @property
    def untested(self) -> list[MetricChange]:
        """Where a side has fewer than three seeds, and the numbers differ."""
        return [m for m in self.movements if m.verdict == "untested"]

    @cached_property
    def sentences(self) -> list[str]:
        """The verdict first, then rankings, costs and suspects."""
        return self._sentences(None)

    def _sentences(self, most: int | None) -> list[str]:
        """At most so many suspects; None for all."""
        return [_verdict(self), *_costs(self), *_rankings(self), *_one_sided(self),
                *_suspects(self, most), _note(self)]

    @property
    def frame(self) -> pd.DataFrame:
        """One row per cell and metric, numbers in the metric's own unit."""
        return pd.DataFrame(rows(self.movements))

    def rich(self) -> Group:
        """For the terminal, 80 columns wide."""
        return Group(*(terminal_table(table, [None] * len(table.headings), table.caption)
                       for table in tables(self.movements)),
                     *map(plain_text, self._sentences(MOST)))

    def markdown(self) -> str:
        """Table and sentences for GitHub."""
        verdict, *others = map(escape_markdown, self.sentences)
        lines = [verdict, ""]
        for table in tables(self.movements):
            lines += [f"**{escape_markdown(table.caption)}**", "", *markdown_groups(table)]
        return "\n".join([*lines, *(f"{sentence}\n" for sentence in others)])

    def csv(self) -> str:
        """A line per cell and metric, and one per cost beyond its tolerance."""
        lines = rows(self.movements)
        return to_csv(list(lines[0]), [*lines, *cost_rows(self.costs)])

    def write(self, path: str | Path) -> Path:
        """Write it to a `.md` or `.csv` file.

        Raises:
            InputError: another ending, or the folder cannot be written.
        """
        path = Path(path)
        formats = {".md": self.markdown, ".csv": self.csv}
        if path.suffix not in formats:
            raise InputError(f"{path}: Markdown or CSV?", "end the name in .md or .csv")
        return write_file(path, formats[path.suffix]())

    def _repr_markdown_(self) -> str:
        return self.markdown()


def _verdict(drift: Drift) -> str:
    from_to = f"from {drift.old.label} to {drift.new.label}"
    tested = len(drift.movements) - len(drift.untested)
    gone = [m for m in drift.movements if m.moved]
    rest = f" {len(drift.untested)} with fewer than three seeds on a side could not be tested." \
        if drift.untested else ""
    if gone:
        names = _listed([f"{title(m.names)} ({m.metric})" for m in gone])
        verb = "has" if len(gone) == 1 else "have"
        return f"{len(gone)} of {count_of(len(drift.movements), 'number')} {verb} moved {from_to}: {names}.{rest}"
    if drift.moved:
        return f"No metric moved beyond noise {from_to}, but costs that are counted did.{rest}"
    if drift.equal:
        return f"Nothing moved {from_to}: all numbers are equal, seed by seed."
    if not tested:
        return (f"Nothing could be tested {from_to}: with fewer than three seeds on a side a change "
                "cannot be told from the luck of the seed.")
    return f"Nothing moved beyond noise {from_to}.{rest}"


def _costs(drift: Drift) -> list[str]:
    """`checkpoint_bytes: lora x2.00, probe x1.30`, a sentence what is counted and what measured."""
    many = len({names[:2] for names in drift.old.cells}) > 1
    sentences = []
    for counted, begin in ((True, "Counted costs moved"),
                           (False, "Measured costs beyond their tolerance, which decide nothing")):
        changes = sorted((c for c in drift.costs if c.counted == counted), key=lambda c: c.cost)
        parts = []
        for cost, members in groupby(changes, key=lambda c: c.cost):
            names = [f"{title(c.names) if many else c.names[2]} x{c.factor:.3g}" for c in members]
            parts.append(f"{cost}: {_listed(names)}")
        if parts:
            sentences.append(f"{begin}: {'; '.join(parts)}.")
    return sentences


def _rankings(drift: Drift) -> list[str]:
    if not drift.orders:
        return []
    metric = drift.movements[0].metric
    tau = tau_of(drift.orders)
    over = f", mean over {len(drift.orders)} pairs of data set and backbone" \
        if len(drift.orders) > 1 else ""
    value = f"Kendall's tau {tau:.2f}" if math.isfinite(tau) else "no order, all are equal"
    begin = f"Ranking by {metric}: {value}{over}; "
    swaps = [(order, swap) for order in drift.orders for swap in order.swaps]
    if not swaps:
        return [f"{begin}no two techniques changed places."]
    real = [(order, swap) for order, swap in swaps if swap.significant]
    swapped = [f"{swap.first}/{swap.second}" + (f" on {order.group[1]} from {order.group[0]}"
            if len(drift.orders) > 1 else "") for order, swap in (real or swaps)]
    if not real:
        changed = f"{count_of(len(swaps), 'pair')} changed places ({_listed(swapped)}), none significantly."
    else:
        changed = (f"{count_of(len(swaps), 'pair')} changed places, {len(real)} of them significantly "
                   f"in both orders: {_listed(swapped)}.")
    return [begin + changed]


def _one_sided(drift: Drift) -> list[str]:
    return [f"Only in {side.label}: {_listed([title(names) for names in cells])}."
            for side, cells in ((drift.old, drift.only_old), (drift.new, drift.only_new)) if cells]


def _suspects(drift: Drift, most: int | None) -> list[str]:
    sentences = []
    if drift.suspects:
        shown = list(drift.suspects[:most])
        left = len(drift.suspects) - len(shown)
        sentences.append("What differs in how they came about: " + "; ".join(shown)
                     + (f"; and {left} more (--out FILE.md has all)" if left else "") + ".")
    elif not drift.unknown:
        sentences.append("Both came about alike: data, weights, settings, versions, commit, device.")
    if drift.unknown:
        sentences.append(f"{'; '.join(drift.unknown)}.")
    return sentences


def _note(drift: Drift) -> str:
    kinds = dict.fromkeys(m.test.test for m in drift.movements if m.test)
    family = sum(m.test is not None for m in drift.movements)
    text = "Cells are matched by their names."
    if kinds:
        text += (f" {' or '.join(kinds)}".replace(" paired", " Paired", 1)
                 + f", Holm's correction over {count_of(family, 'test')}, 5% chance of any false "
                 "claim; with few seeds only large changes can be told from noise.")
    return text


def _listed(names: Sequence[str]) -> str:
    shown = list(names[:6]) + ([f"{len(names) - 6} more"] if len(names) > 6 else [])
    return listed(shown)
