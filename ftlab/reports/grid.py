"""A table with chosen columns, before any format: techniques by data sets, metrics or costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ftlab.reports.metric_text import cost, digits
from ftlab.reports.sheet import NONE, Line, Quantity, Sheet, quantity
from ftlab.statistics.seed_summary import Summary
from ftlab.tracking.metric_range import is_percent


@dataclass(frozen=True)
class Entry:
    """What stands in one place of a table.

    Attributes:
        summary: over seeds; n = 0 where there is nothing.
        stands: whether it is the best of its column and block, or not significantly worse.
    """

    summary: Summary
    stands: bool = False


@dataclass(frozen=True)
class TableRow:
    """One line.

    Attributes:
        entries: by the column's name; what is absent shows as missing.
        notes: what is incomplete, one text a cell.
    """

    name: str
    entries: Mapping[str, Entry]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TableBlock:
    """Lines that are compared with each other.

    Attributes:
        study, backbone, dataset: which; the data set is empty where it is a column.
    """

    study: str
    backbone: str
    dataset: str
    lines: tuple[TableRow, ...]


@dataclass(frozen=True)
class Column:
    """One column: its name, and the metric whose numbers it holds."""

    name: str
    metric: str


@dataclass(frozen=True)
class Grid:
    """The table.

    Attributes:
        caption, about: as of a `Sheet`.
    """

    columns: tuple[Column, ...]
    blocks: tuple[TableBlock, ...]
    caption: str
    about: tuple[tuple[str, str], ...]

    def sheet(self) -> Sheet:
        """As text."""
        notes = list(dict.fromkeys(note for block in self.blocks for line in block.lines
                                   for note in line.notes))
        numbers = {note: number for number, note in enumerate(notes, 1)}
        writers = [self._writer(column) for column in self.columns]
        groups = []
        for block in self.blocks:
            lines = []
            for line in block.lines:
                marks = ", ".join(str(numbers[note]) for note in line.notes)
                found = [line.entries.get(column.name) for column in self.columns]
                texts = [write(entry) for write, entry in zip(writers, found, strict=True)]
                bold = {place for place, entry in enumerate(found, 1) if entry and entry.stands}
                name = line.name + (f" [{marks}]" if marks else "")
                lines.append(Line((name, *texts), frozenset(bold)))
            groups.append((self._title(block), tuple(lines)))
        if len(groups) == 1:
            groups = [("", groups[0][1])]
        return Sheet(("technique", *(self._heading(column) for column in self.columns)),
                     tuple(groups), tuple(notes), self.caption, self.about)

    def _title(self, block: TableBlock) -> str:
        several = len({each.study for each in self.blocks}) > 1
        where = f"{block.dataset} from {block.backbone}" if block.dataset else (
            f"from {block.backbone}")
        return f"{block.study}: {where}" if several else where

    def _values(self, column: Column) -> list[float]:
        return [entry.summary.mean for block in self.blocks for line in block.lines
                if (entry := line.entries.get(column.name)) is not None]

    def _heading(self, column: Column) -> str:
        if column.metric.startswith("cost/"):
            unit = cost(column.metric, self._values(column))[1]
            return column.name + (f", {unit}" if unit else "")
        return column.name + (", %" if is_percent(column.metric) else "")

    def _writer(self, column: Column) -> Any:
        """Costs as their mean alone, metrics with spread and number of seeds."""
        values = self._values(column)
        if column.metric.startswith("cost/"):
            number = cost(column.metric, values)[0]
        else:
            # one precision for all columns of a metric
            same = [value for other in self.columns if other.metric == column.metric
                    for value in self._values(other)]
            number = digits(column.metric, same)

        def write(entry: Entry | None) -> str:
            if entry is None or not math.isfinite(entry.summary.mean):
                return NONE
            if column.metric.startswith("cost/"):
                return Quantity(number(entry.summary.mean))
            return quantity(entry.summary, number)

        return write

    def numbers(self) -> tuple[list[str], list[dict[str, Any]]]:
        """As numbers in base units: the columns of a CSV, and a mapping a line."""
        keys = ["study", "backbone", "dataset", "technique"]
        parts = ("mean", "std", "n", "ci_low", "ci_high")
        names = [f"{column.name}.{part}" for column in self.columns for part in (*parts, "stands")]
        lines = []
        for block in self.blocks:
            for line in block.lines:
                found: dict[str, Any] = dict(zip(keys, (block.study, block.backbone, block.dataset,
                                                        line.name), strict=True))
                for name, entry in line.entries.items():
                    if entry.summary.n:
                        found |= {f"{name}.{part}": getattr(entry.summary, part) for part in parts}
                        found[f"{name}.stands"] = int(entry.stands)
                found["note"] = "; ".join(line.notes)
                lines.append(found)
        return [*keys, *names, "note"], lines

