"""`ftlab sweep` and `status`."""

from __future__ import annotations

from pathlib import Path

import typer

from ftlab.commands.company import company
from ftlab.commands.show import FRESH, console, files, say
from ftlab.options import (
    Address,
    Allow,
    EngineName,
    Plain,
    Results,
    StorageOption,
    SweepFile,
    Timeout,
    Uri,
    Workers,
)


def sweep(
    file: SweepFile,
    workers: Workers = None,
    engine: EngineName = "local",
    address: Address = None,
    timeout: Timeout = 1800.0,
    plain: Plain = False,
    storage: StorageOption = None,
    tracking_uri: Uri = None,
    results: Results = Path("results"),
    allow: Allow = None,
) -> None:
    """Search the hyperparameters of a study's techniques, with the same budget for each.

    The same command continues after an interruption and repeats no finished trial; given on
    several machines with one storage, they share the trials. It writes the tuned study, and
    tables and figures of what the budget bought.
    """
    from ftlab.reports.sweep_report import report
    from ftlab.studies.coordinator import need
    from ftlab.sweeps.coordinator import run_sweep
    from ftlab.sweeps.status import rich
    from ftlab.sweeps.sweep import load_sweep
    from ftlab.sweeps.tuned_study import write_tuned

    searched = load_sweep(file, allow or (), storage).with_shortcuts(not plain)
    with company(need(searched.study), engine, address, FRESH.get() and not allow,
                 workers) as executor:
        outcome = run_sweep(searched, tracking_uri, results, workers=workers, timeout=timeout,
                            engine=executor)
    console().print(rich(searched, outcome.standings, outcome.better))
    for failure in outcome.failures:
        say(failure, error=True)
    end = "Time is up; the same command continues."
    if outcome.over:
        tuned = write_tuned(searched, outcome.standings, outcome.better, f"ftlab sweep {file}")
        end = f"The tuned study: ftlab run {tuned}"
    written = report(searched, tracking_uri, results)
    for sentence in written.sentences:
        console().say(sentence)
    files(written.paths, written.view, tracking_uri)
    say(end)
    if outcome.failures:
        raise typer.Exit(1)


def status(file: SweepFile, storage: StorageOption = None, allow: Allow = None) -> None:
    """Show how a sweep stands; from any terminal, while it goes on."""
    from ftlab.sweeps.coordinator import directions
    from ftlab.sweeps.status import rich
    from ftlab.sweeps.status import status as standing
    from ftlab.sweeps.sweep import load_sweep

    searched = load_sweep(file, allow or (), storage)
    console().print(rich(searched, standing(searched), directions(searched)[0]))
