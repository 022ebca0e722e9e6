"""The objects of `--json`, of what commands have found: their keys are those of docs/programs.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ftlab.exports.predictions import Predictions
    from ftlab.reports.drift.drift import Drift
    from ftlab.reports.study_files import Report
    from ftlab.reports.study_table import ChosenTable
    from ftlab.studies.dry_run import Estimate
    from ftlab.sweeps.progress import CellProgress, Direction
    from ftlab.sweeps.sweep import Sweep

Answer = dict[str, Any]


def of_table(report: Report) -> Answer:
    """A study's cells as in `table.csv`, its pairs as in `tests.csv`, and what follows from them."""
    from ftlab.reports.csv_files import PAIR, pair_lines, table_lines

    return {"study": report.study, "metric": report.metric,
            "cells": [_filled(line, line) for line in table_lines(report.rows, report.metric)],
            "pairs": [_filled(line, PAIR) for line in pair_lines(report.comparisons)],
            "best": [{"backbone": found.group[0], "dataset": found.group[1], "best": found.best or None,
                      "standing": found.standing, "baseline": found.baseline or None,
                      "higher_is_better": found.higher_is_better} for found in report.comparisons],
            "sentences": report.sentences, "files": report.paths}


def _filled(line: Mapping[str, Any], keys: Iterable[str]) -> Answer:
    """All keys, null where a sheet has an empty field."""
    return {key: None if line.get(key, "") == "" else line[key] for key in keys}


def of_chosen_table(made: ChosenTable, studies: Sequence[str]) -> Answer:
    """A table of columns of one's choice."""
    return {"studies": studies, "lines": made.lines, "files": made.paths}


def of_estimate(estimate: Estimate) -> Answer:
    """The forecast of `--dry-run`."""
    study = estimate.plan.study
    return {"event": "estimate", "study": study.name, "seeds": study.seeds, "seconds": estimate.total_seconds,
            "cells": [_foreseen(estimate, planned.cell.key) for planned in estimate.plan.cells],
            "notes": estimate.plan.notes}


def _foreseen(estimate: Estimate, key: Any) -> Answer:
    runtime, memory = estimate.foreseen.get(key.config), estimate.memory.get(key.config)
    return {"backbone": key.backbone, "dataset": key.dataset, "technique": key.technique,
            "seconds_a_run": runtime and runtime.cached_seconds, "memory_bytes": memory and memory.needed}


def of_status(sweep: Sweep, standings: Sequence[CellProgress], direction: Direction) -> Answer:
    """How far each cell's search is."""
    from ftlab.sweeps.status import counts, left, own

    def cell(standing: CellProgress) -> Answer:
        key, best = standing.cell.key, standing.best(direction)
        return {"backbone": key.backbone, "dataset": key.dataset, "technique": key.technique,
                "search": standing.search, "budget": standing.budget, "ended": standing.ended, **counts(standing),
                "own": own(standing), "best": None if best is None else best.values[0],
                "setting": None if best is None else best.params}

    shown = [standing for standing in standings if standing.budget]
    return {"sweep": sweep.name, "study": sweep.study.name, "trials": sweep.trials, "metric": sweep.objectives[0],
            "direction": direction, "cells": list(map(cell, shown)), "over": all(s.over for s in shown),
            "seconds_left": left(list(standings))}


def of_drift(drift: Drift) -> Answer:
    """The differences of one study from another."""
    from ftlab.reports.drift.drift_table import cost_rows, rows

    changes = [_filled(line, line) for line in rows(drift.movements)]
    keys = changes[0] if changes else ()
    return {"old": drift.old.label, "new": drift.new.label, "moved": drift.moved, "equal": drift.equal,
            "changes": changes, "costs": [_filled(line, keys) for line in cost_rows(drift.costs)],
            "only_old": drift.only_old, "only_new": drift.only_new,
            "suspects": drift.suspects, "unknown": drift.unknown, "sentences": drift.sentences}


def of_predictions(made: Predictions, run: str) -> Answer:
    """A row an example, nested values as they are."""
    rows: list[Mapping[str, Any]] = [dict(zip(made.columns, row, strict=True))
                                     for row in zip(*made.columns.values(), strict=True)]
    return {"run": run, "predictions": rows, "metrics": made.metrics, "notes": made.notes}
