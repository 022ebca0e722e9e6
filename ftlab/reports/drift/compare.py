"""Two studies, cell by cell: what moved beyond noise, and what might be the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
from rich.console import Group

from ftlab.errors import InputError
from ftlab.reports.csv_files import to_csv, write_file
from ftlab.reports.drift import drift_table
from ftlab.reports.drift.costs import CostChange, cost_changes
from ftlab.reports.drift.metric_changes import MetricChange, chosen, movements
from ftlab.reports.drift.provenance_diff import suspects, unknown
from ftlab.reports.drift.rank_changes import RankChange, orders
from ftlab.reports.drift.read_results import ComparedStudy, Names, measurements, title
from ftlab.tracking.metric_facts import named
from ftlab.tracking.mlflow_values import name_of


@dataclass(frozen=True)
class Drift:
    """What has changed from one study to another.

    Attributes:
        old, new: the two sides.
        movements: a test a cell and metric.
        orders: rankings by the first metric.
        costs: those beyond their tolerance.
        only_old, only_new: cells that the other side lacks.
        suspects: what differs in how the two came about, a line each.
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
        return drift_table.sentences(self)

    @property
    def frame(self) -> pd.DataFrame:
        """One row a cell and metric, numbers in the metric's own unit."""
        return pd.DataFrame(drift_table.rows(self))

    def rich(self) -> Group:
        """For the terminal, 80 columns wide."""
        return drift_table.terminal(self)

    def markdown(self) -> str:
        """Table and sentences for GitHub."""
        return drift_table.markdown(self)

    def csv(self) -> str:
        """A line a cell and metric, and one a cost beyond its tolerance."""
        rows = drift_table.rows(self)
        return to_csv(list(rows[0]), [*rows, *drift_table.cost_rows(self)])

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


def compare(old: str | Path, new: str | Path, metrics: Sequence[str] = ()) -> Drift:
    """Which cells moved beyond the noise of seeds from one study to another.

    Cells are matched by the names of backbone, data set and technique; their settings may differ,
    and are among the suspects then.

    Args:
        old: a result folder, a `runs.csv`, or a store's address with the study's name behind `#`:
            `sqlite:///mlflow.db#quickstart`.
        new: likewise.
        metrics: to test, such as `test/accuracy`; unless said what the studies report, and all
            test metrics where they do not say. Each adds a test a cell to the family that Holm's
            correction is over.

    Raises:
        InputError: a side cannot be read, or the two have no cell or metric in common.
    """
    return drift(measurements(old), measurements(new), metrics)


def drift(old: ComparedStudy, new: ComparedStudy, metrics: Sequence[str] = ()) -> Drift:
    """`compare`, of what has been read.

    Raises:
        InputError: no cell or metric in common.
    """
    if not old.cells.keys() & new.cells.keys():
        raise InputError(
            f"{old.label} and {new.label} have no cell in common",
            f"cells match by names; the old has {_some(old)}, the new {_some(new)}")
    facts = {**old.facts, **new.facts}
    wanted = [named(metric, facts)
              for metric in chosen(old, new, [name_of(metric) for metric in metrics])]
    return Drift(
        old, new,
        movements=tuple(movements(old, new, wanted)),
        orders=tuple(orders(old, new, wanted[0])),
        costs=tuple(cost_changes(old, new)),
        only_old=tuple(names for names in old.cells if names not in new.cells),
        only_new=tuple(names for names in new.cells if names not in old.cells),
        suspects=tuple(suspects(old, new)),
        unknown=tuple(unknown(old, new)),
    )


def _some(side: ComparedStudy) -> str:
    return next(iter(map(title, side.cells)), "none")
