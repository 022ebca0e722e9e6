"""Changes of costs beyond a tolerance, which follows how exactly each can be measured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median

from ftlab.reports.drift.read_results import CellResult, ComparedStudy, Names

COUNTED = 1.01
"""Parameters, FLOPs and bytes of a checkpoint are counted."""
HEADER = 4096
"""Bytes of a checkpoint that may be the names and versions in its manifest."""
MEMORY = 1.25
"""Peaks of memory depend on when the allocator gives back."""
SECONDS = 2.0
"""Timings of one cell's seeds differ by as much on a machine that does something else besides."""


@dataclass(frozen=True)
class CostChange:
    """A cost beyond its tolerance.

    Attributes:
        cost: by name, without `cost/`.
        old, new: medians over seeds.
        tolerance: the factor allowed in either direction.
        counted: whether it is exact, so that it decides; timings and memory do not.
    """

    names: Names
    cost: str
    old: float
    new: float
    tolerance: float
    counted: bool

    @property
    def factor(self) -> float:
        """New / old; infinite where the old is zero."""
        return self.new / self.old if self.old else math.inf


def cost_changes(old: ComparedStudy, new: ComparedStudy) -> list[CostChange]:
    """All costs beyond their tolerance, of the cells that both have."""
    return [change for names, cell in old.cells.items() if names in new.cells
            for change in _changes(names, cell, new.cells[names])]


def _changes(names: Names, old: CellResult, new: CellResult) -> list[CostChange]:
    changes = []
    for name in sorted(old.values.keys() & new.values.keys()):
        # what a cache cost depends on who came first, and is no property of the cell
        if not name.startswith("cost/") or name == "cost/prefix_seconds":
            continue
        a, b = (median(cell.values[name].values()) for cell in (old, new))
        tolerance = SECONDS if name.endswith("seconds") else MEMORY if "memory" in name else COUNTED
        counted = tolerance == COUNTED
        if not counted and min(a, b) <= 0:
            continue  # too small to be seen, or not measured by an earlier version
        least = HEADER if name == "cost/checkpoint_bytes" else 0
        if max(a, b) > tolerance * min(a, b) and abs(a - b) > least:
            changes.append(CostChange(names, name.removeprefix("cost/"), a, b, tolerance, counted))
    return changes

