"""How a sweep stands, as a table; reads the storage alone, from any terminal."""

from __future__ import annotations

import optuna
from optuna.trial import TrialState
from rich.table import Table

from ftlab.errors import InputError
from ftlab.sweeps.standing import Direction, Standing
from ftlab.sweeps.storage import Storage
from ftlab.sweeps.sweep import Sweep


def status(sweep: Sweep) -> list[Standing]:
    """Every cell's trials.

    Raises:
        InputError: the sweep was never begun in its storage.
    """
    storage = Storage(sweep.storage)
    found = []
    for cell in sweep.study.cells:
        name = f"{sweep.name}: {cell.key.title}"
        try:
            search = optuna.load_study(study_name=name, storage=storage.backend)
        except KeyError:
            raise InputError(f"storage {sweep.storage}: nothing of the sweep {sweep.name} in it",
                             "begin it: ftlab sweep SWEEP") from None
        found.append(Standing(cell, sweep.trials_of(cell), search.get_trials(deepcopy=False)))
    return found


def rich(sweep: Sweep, standings: list[Standing], direction: Direction) -> Table:
    """For the terminal: done, running, pruned, failed and the best so far of each cell."""
    table = Table(title=f"{sweep.name}: {sweep.trials} trials a cell of {sweep.study.name}")
    for column in ("technique", "dataset", "backbone"):
        table.add_column(column)
    for column in ("done", "running", "pruned", "failed", f"best {sweep.objectives[0]}", "own"):
        table.add_column(column, justify="right")
    table.add_column("best setting")
    for standing in standings:
        key, best = standing.cell.key, standing.best(direction)
        own = [t.values[0] for t in standing.trials
               if t.number == 0 and t.state == TrialState.COMPLETE]
        counts = [standing.count(state)
                  for state in (TrialState.RUNNING, TrialState.PRUNED, TrialState.FAIL)]
        table.add_row(
            key.technique, key.dataset, key.backbone, f"{standing.ended}/{standing.budget}",
            *map(str, counts), "" if best is None else f"{best.values[0]:.4f}",
            "".join(f"{value:.4f}" for value in own),
            "" if best is None else _setting(best.params),
        )
    return table


def _setting(values: dict[str, object]) -> str:
    return ", ".join(f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
                     for name, value in values.items())
