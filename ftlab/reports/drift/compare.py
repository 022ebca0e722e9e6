"""Two studies, cell by cell: what moved beyond noise, and what might be the reason."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ftlab.errors import InputError
from ftlab.reports.drift.costs import cost_changes
from ftlab.reports.drift.drift import Drift
from ftlab.reports.drift.metric_changes import chosen, movements
from ftlab.reports.drift.provenance_diff import suspects, unknown
from ftlab.reports.drift.rank_changes import orders
from ftlab.reports.drift.read_results import ComparedStudy, measurements, title
from ftlab.tracking.metric_facts import named
from ftlab.tracking.mlflow_values import name_of


def compare(old: str | Path, new: str | Path, metrics: Sequence[str] = ()) -> Drift:
    """Find the cells that moved beyond the noise of seeds from one study to another.

    Cells are matched by the names of backbone, data set and technique; their settings may differ,
    and are among the suspects then.

    Args:
        old: a result folder, a `runs.csv`, or a store's address with the study's name behind `#`:
            `sqlite:///mlflow.db#quickstart`.
        new: the other side, given in the same way.
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
