"""`ftlab sweep` and `status`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ftlab.commands.company import company
from ftlab.commands.json_lines import emit
from ftlab.commands.show import FRESH, console, files, say
from ftlab.options import (
    Address,
    Allow,
    DryRun,
    EngineName,
    Json,
    Mirror,
    Only,
    Plain,
    Results,
    Seeds,
    Sets,
    StorageOption,
    SweepFile,
    Timeout,
    Uri,
    Workers,
    numbers,
)

if TYPE_CHECKING:
    from ftlab.sweeps.sweep import Sweep


def sweep(
    file: SweepFile,
    set_: Sets = None,
    seeds: Seeds = None,
    only: Only = None,
    dry_run: DryRun = False,
    workers: Workers = None,
    engine: EngineName = "local",
    address: Address = None,
    timeout: Timeout = 1800.0,
    plain: Plain = False,
    storage: StorageOption = None,
    tracking_uri: Uri = None,
    mirror: Mirror = None,
    results: Results = Path("results"),
    allow: Allow = None,
) -> None:
    """Search the hyperparameters of a study's techniques, with the same budget for each.

    The same command continues after an interruption and repeats no finished trial; given on
    several machines with one storage, they share the trials. It writes the tuned study, and
    tables and figures of what the budget bought. --set reaches the sweep file's keys, and the
    study's; --only leaves the other techniques' trials for later.
    """
    from ftlab.studies.analysis_keys import check_mirror

    mirrors = mirror and check_mirror(mirror, "--mirror")
    searched = _loaded(file, allow, storage, set_, seeds).only(only or ()).with_shortcuts(not plain)
    if dry_run:
        from ftlab.sweeps.dry_run import rehearsal

        console().print(rehearsal(searched))
        return
    from ftlab.reports.sweep_report import report
    from ftlab.studies.coordinator import need
    from ftlab.sweeps.coordinator import run_sweep
    from ftlab.sweeps.status import rich
    from ftlab.sweeps.tuned_study import write_tuned

    with company(need(searched.study), engine, address, FRESH.get() and not allow,
                 workers) as executor:
        outcome = run_sweep(searched, tracking_uri, results, workers=workers, timeout=timeout,
                            engine=executor, mirror=mirrors)
    console().print(rich(searched, outcome.standings, outcome.better))
    for failure in outcome.failures:
        say(failure, error=True)
    end = "Time is up; the same command continues."
    if outcome.over:
        words = [word for given in set_ or () for word in ("--set", given)]
        words += ["--seeds", seeds] if seeds is not None else []
        tuned = write_tuned(searched, outcome.standings, outcome.better,
                            shlex.join(["ftlab", "sweep", str(file), *words]))
        end = f"The tuned study: ftlab run {tuned}"
    written = report(searched, tracking_uri, results)
    for sentence in written.sentences:
        console().say(sentence)
    files(written.paths, written.view, tracking_uri)
    say(end)
    if outcome.failures:
        raise typer.Exit(1)


def status(file: SweepFile, set_: Sets = None, seeds: Seeds = None, storage: StorageOption = None,
           allow: Allow = None, json: Json = False) -> None:
    """Show how a sweep stands; from any terminal, while it goes on."""
    from ftlab.commands.answers import of_status
    from ftlab.sweeps.coordinator import directions
    from ftlab.sweeps.status import rich
    from ftlab.sweeps.status import status as standing

    searched = _loaded(file, allow, storage, set_, seeds)
    standings, direction = standing(searched), directions(searched)[0]
    emit(of_status(searched, standings, direction))
    console().print(rich(searched, standings, direction))


def _loaded(file: Path, allow: list[str] | None, storage: str | None, sets: list[str] | None,
            seeds: str | None) -> Sweep:
    from ftlab.sweeps.sweep import load_sweep

    sweep = load_sweep(file, allow or (), storage, sets or ())
    return sweep if seeds is None else sweep.with_seeds(numbers(seeds))
