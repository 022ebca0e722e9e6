"""`ftlab compare` and `ftlab reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from ftlab.commands.json_lines import emit
from ftlab.commands.show import console, say
from ftlab.options import (
    Allow,
    Json,
    Metrics,
    Only,
    Outs,
    Results,
    Seeds,
    Sets,
    Timeout,
    Workers,
    numbers,
)


def compare(
    old: Annotated[str, typer.Argument(metavar="OLD", help="results/STUDY, a runs.csv, or a store "
                                       "and its study: sqlite:///mlflow.db#quickstart")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="likewise")],
    metric: Metrics = None,
    out: Outs = None,
    json: Json = False,
) -> None:
    """Say which cells moved beyond the noise of seeds, how ranks changed, and what may be why.

    Cells are matched by names. Exit code 0 where nothing moved, 1 where something did.
    """
    from ftlab.commands.answers import of_drift
    from ftlab.reports.drift.compare import compare as make

    drift = make(old, new, metric or ())
    emit(of_drift(drift))
    console().print(drift.rich())
    for path in out or ():
        say(f"File: {drift.write(path)}")
    if drift.moved:
        raise typer.Exit(1)


def reproduce(
    what: Annotated[
        Path, typer.Argument(metavar="RESULTS|STUDY", help="results/STUDY, or a study file whose "
                             "results stand below --results")
    ],
    set_: Sets = None,
    seeds: Seeds = None,
    only: Only = None,
    metric: Metrics = None,
    into: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="FOLDER", help="for the new store and results [a temporary one, "
                     "which stays only if something moved]"),
    ] = None,
    out: Outs = None,
    workers: Workers = 1,
    timeout: Timeout = 1800.0,
    results: Results = Path("results"),
    allow: Allow = None,
) -> None:
    """Run a study again, with the same seeds, and say whether its results come out the same.

    Nothing is written beside the old results. Other data or weights are refused before anything
    trains. Exit code 0 where it is reproduced, 1 where not.
    """
    from ftlab.reproduction import reproduce as make

    outcome = make(what, into, results, set_ or (), only or (),
                 None if seeds is None else numbers(seeds), allow or (), metric or (),
                 workers, timeout)
    console().print(outcome.drift.rich())
    for failure in outcome.failures:
        say(failure, error=True)
    for path in out or ():
        say(f"File: {outcome.drift.write(path)}")
    if outcome.folder is not None:
        say(f"The new runs: {outcome.folder}")
    console().say(outcome.sentence, style="bold")
    if not outcome.reproduced:
        raise typer.Exit(1)
