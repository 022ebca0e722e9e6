"""The progress of a sweep, as a table; reads the storage alone, from any terminal."""

from __future__ import annotations

import contextlib
import itertools
from itertools import groupby
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich import box
from rich.table import Table

from ftlab.errors import InputError
from ftlab.redaction import redact
from ftlab.studies.display import Clock, clock
from ftlab.sweeps.progress import WORDS, CellProgress, Direction, pooled
from ftlab.sweeps.storage import Storage, is_file
from ftlab.sweeps.sweep import Sweep
from ftlab.terminal import plain_text

_NONE = "-"
_STATES = (TrialState.RUNNING, TrialState.PRUNED, TrialState.FAIL)


def status(sweep: Sweep) -> list[CellProgress]:
    """Every cell's trials in every search.

    Raises:
        InputError: the sweep was never begun in its storage.
    """
    missing = InputError(f"storage {redact(sweep.storage)}: nothing of the sweep {sweep.name} in it",
                         "begin it: ftlab sweep SWEEP")
    if is_file(sweep.storage) and not Path(sweep.storage).exists():
        raise missing  # opening the journal would make the file

    def look(storage: Storage) -> list[CellProgress]:
        standings = []
        for part, cell in itertools.product(sweep.each, sweep.study.cells):
            name = f"{part.name}: {cell.key.title}"
            trials: list[FrozenTrial] = []  # a search more than there was
            with contextlib.suppress(KeyError) if part.search else contextlib.nullcontext():
                search = optuna.load_study(study_name=name, storage=storage.backend)
                trials = search.get_trials(deepcopy=False)
            standings.append(CellProgress(cell, part.trials_of(cell), trials, part.search))
        return standings

    storage = Storage(sweep.storage)
    try:
        return storage.patiently(lambda: look(storage))
    except KeyError:
        raise missing from None
    finally:
        storage.close()


def left(standings: list[CellProgress]) -> float | None:
    """Seconds until the budget is spent, at as many trials a time as run now.

    A technique's trials are taken to last as long as its earlier ones. None where none runs or
    none has ended.
    """
    running = sum(standing.count(TrialState.RUNNING) for standing in standings)
    cells = pooled(standings)
    still = Clock({s.cell.key.title: max(0, s.budget - s.ended) for s in cells})
    for standing in cells:
        took = [t.duration.total_seconds() for t in standing.trials if t.duration is not None]
        if took:
            still.seconds[standing.cell.key.title] = took
    return still.left(slots=running) if running and still.seconds else None


def rich(sweep: Sweep, standings: list[CellProgress], direction: Direction) -> Table:
    """For the terminal, in 80 columns: how far each cell is, its best so far, and with what.

    Columns in which nothing stands are left out, and cells that get no trials.
    """
    standings = [standing for standing in standings if standing.budget]
    states = [state for state in _STATES if any(s.count(state) for s in standings)]
    table = Table(
        title=plain_text(f"{sweep.name}: {sweep.trials} trials a cell of {sweep.study.name}"
                         f"{f', {sweep.searches} searches' * (sweep.searches > 1)}"),
        caption=plain_text(_caption(sweep, standings, direction)), title_justify="left",
        caption_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False,
    )
    table.add_column("technique", overflow="fold")
    for heading in ("ended", *(WORDS[state] for state in states), "own", "best"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("best setting", overflow="fold")
    further = f", search {{}} of {sweep.searches}" if sweep.searches > 1 else ""
    groups = [(pair, list(members)) for pair, members in groupby(
        standings, key=lambda s: f"{s.cell.key.dataset} from {s.cell.key.backbone}"
                                 f"{further.format(s.search + 1)}")]
    for pair, members in groups:
        if len(groups) > 1:
            table.add_section()
            table.add_row(plain_text(pair, style="italic"))
        for standing in members:
            table.add_row(*map(plain_text, _line(standing, states, direction)))
    return table


def own(standing: CellProgress) -> float | None:
    """The score of the study's own setting, the first trial; None before it is complete."""
    return next((t.values[0] for t in standing.trials
                 if t.number == 0 and t.state == TrialState.COMPLETE), None)


def counts(standing: CellProgress) -> dict[str, int]:
    """How many trials run, were pruned and failed."""
    return {WORDS[state]: standing.count(state) for state in _STATES}


def _line(standing: CellProgress, states: list[TrialState], direction: Direction) -> list[str]:
    best, unchanged = standing.best(direction), own(standing)
    counts = [str(standing.count(state) or _NONE) for state in states]
    return [
        standing.cell.key.technique, f"{standing.ended}/{standing.budget}", *counts,
        _NONE if unchanged is None else f"{unchanged:.4f}",
        _NONE if best is None else f"{best.values[0]:.4f}",
        _NONE if best is None else "the study's own" if best.number == 0 else _setting(best.params),
    ]


def _caption(sweep: Sweep, standings: list[CellProgress], direction: Direction) -> str:
    better = "higher" if direction == "maximize" else "lower"
    text = f"own, best: {sweep.objectives[0]} ({better} is better) of the study's setting, and of all"
    seconds = left(standings)
    if all(standing.over for standing in standings):
        return f"{text}. All trials have ended."
    if any(standing.count(TrialState.RUNNING) for standing in standings):
        return f"{text}. " + ("The time left is not known yet." if seconds is None
                              else f"About {clock(seconds)} left.")
    return f"{text}. No trial runs now; the same command continues."


def _setting(values: dict[str, object]) -> str:
    return ", ".join(f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
                     for name, value in values.items())
