"""Techniques by data sets, metrics or costs, as numbers: tables with chosen columns."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ftlab.reports.metric_text import cost, digits
from ftlab.reports.table import NONE, Column, Table, group_title, plain, quantity, tabulate
from ftlab.statistics.seed_summary import Summary
from ftlab.tracking.metric_range import is_percent

_PARTS = ("mean", "std", "n", "ci_low", "ci_high")


@dataclass(frozen=True)
class Entry:
    """The content of one place of a table.

    Attributes:
        summary: over seeds; n = 0 where there is nothing.
        stands: whether it is the best of its column and block, or not significantly worse.
    """

    summary: Summary
    stands: bool = False


@dataclass(frozen=True)
class GridRow:
    """One technique.

    Attributes:
        study, backbone, dataset: rows of the same three are compared; the data set is empty where
            it is a column.
        entries: by column; what is absent shows as missing.
        notes: what is incomplete, one text per cell.
    """

    study: str
    backbone: str
    dataset: str
    technique: str
    entries: Mapping[str, Entry]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Grid:
    """The table.

    Attributes:
        columns: name -> the metric whose numbers it holds.
        caption, about: as of a `Table`.
    """

    columns: Mapping[str, str]
    rows: tuple[GridRow, ...]
    caption: str
    about: tuple[tuple[str, str], ...]

    def table(self) -> Table:
        """As text."""
        return tabulate(self.rows, [self._column(name) for name in self.columns],
                        name=lambda row: row.technique, title=self._title,
                        notes=lambda row: row.notes, caption=self.caption, about=self.about)

    def _title(self, row: GridRow) -> str:
        several = len({other.study for other in self.rows}) > 1
        where = (group_title((row.backbone, row.dataset)) if row.dataset else
                 f"from {row.backbone}")
        return f"{row.study}: {where}" if several else where

    def _means(self, *columns: str) -> list[float]:
        return [entry.summary.mean for name in columns for row in self.rows
                if (entry := row.entries.get(name)) is not None]

    def _column(self, name: str) -> Column[GridRow]:
        """Costs as their mean alone, metrics with spread and number of seeds."""
        metric = self.columns[name]

        def written(write: Callable[[Summary], str]) -> Callable[[GridRow], str]:
            def text(row: GridRow) -> str:
                entry = row.entries.get(name)
                return write(entry.summary) if entry and math.isfinite(entry.summary.mean) else NONE

            return text

        def stands(row: GridRow) -> bool:
            return name in row.entries and row.entries[name].stands

        if metric.startswith("cost/"):
            amount, unit = cost(metric, self._means(name))
            return Column(name + (f", {unit}" if unit else ""),
                          written(lambda summary: plain(summary.mean, amount)), stands)
        # one precision for all columns of a metric
        number = digits(metric, self._means(*(other for other in self.columns
                                              if self.columns[other] == metric)))
        return Column(name + (", %" if is_percent(metric) else ""),
                      written(lambda summary: quantity(summary, number)), stands)

    def numbers(self) -> tuple[list[str], list[dict[str, Any]]]:
        """As numbers in base units: the columns of a CSV, and a mapping per row."""
        keys = ("study", "backbone", "dataset", "technique")
        names = [f"{name}.{part}" for name in self.columns for part in (*_PARTS, "stands")]
        lines = []
        for row in self.rows:
            line: dict[str, Any] = {key: getattr(row, key) for key in keys}
            for name, entry in row.entries.items():
                if entry.summary.n:
                    line |= {f"{name}.{part}": getattr(entry.summary, part) for part in _PARTS}
                    line[f"{name}.stands"] = int(entry.stands)
            lines.append(line | {"note": "; ".join(row.notes)})
        return [*keys, *names, "note"], lines
