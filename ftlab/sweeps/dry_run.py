"""The answer of `ftlab sweep --dry-run`: one trial of each cell, and how long all of them take."""

from __future__ import annotations

from rich.console import Group

from ftlab.studies.display import clock
from ftlab.studies.dry_run import Estimate, estimate
from ftlab.sweeps.sweep import Sweep
from ftlab.terminal import plain_text
from ftlab.wording import counted


def rehearsal(sweep: Sweep) -> Group:
    """One trial of each cell as `ftlab run --dry-run` shows it, then what the sweep takes.

    Raises:
        InputError: as `plan`.
    """
    study = sweep.study.with_seeds(sweep.seeds).only(sweep.techniques)
    foreseen = estimate(study)
    return Group(plain_text("One trial of each cell, with the study's own settings:"),
                 foreseen.rich(), plain_text(total(sweep, foreseen)))


def total(sweep: Sweep, foreseen: Estimate) -> str:
    """`sweep x: 32 trials in 2 cells, about 20 min one after another`, of the settings of the study."""
    cells = [planned.cell for planned in foreseen.plan.cells]
    trials = {cell.key.config: sweep.searches * sweep.trials_of(cell) for cell in cells}
    seconds = foreseen.seconds_of({config: count * len(sweep.seeds) for config, count in trials.items()})
    searches = f", {sweep.searches} searches" if sweep.searches > 1 else ""
    pruned = ", before any is pruned" if sweep.pruner is not None else ""
    limit = "" if sweep.max_seconds is None else (
        f"; no trial starts after {clock(sweep.max_seconds)} (max_seconds)")
    return (f"sweep {sweep.name}: {counted(sum(trials.values()), 'trial')} of "
            f"{counted(len(sweep.seeds), 'seed')} in {counted(len(cells), 'cell')}{searches}, about "
            f"{clock(seconds)} one after another{pruned}{limit}")
