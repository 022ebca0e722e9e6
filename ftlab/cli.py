"""The command line: parse, call one function, print."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Optional

import typer

from ftlab.errors import FtlabError, InputError
from ftlab.options import (
    Address,
    Allow,
    EngineName,
    Plain,
    Results,
    Sets,
    StorageOption,
    StudyFile,
    SweepFile,
    Timeout,
    Uri,
    Workers,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Compare full, partial and parameter-efficient fine-tuning: which, by how much, at what "
    "cost, and how sure.",
)

@app.command()
def run(
    study: StudyFile,
    set_: Sets = None,
    seeds: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="seeds instead of the study's: 0,1,2"),
    ] = None,
    only: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="TECHNIQUE", help="run this technique alone; may be repeated"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="say what would run, for how long, and stop")
    ] = False,
    workers: Workers = None,
    engine: EngineName = "local",
    address: Address = None,
    timeout: Timeout = 1800.0,
    plain: Plain = False,
    tracking_uri: Uri = None,
    results: Results = Path("results"),
    allow: Allow = None,
) -> None:
    """Run what is unfinished of a study, then show its table.

    The same command continues after an interruption and repeats nothing that is finished.
    """
    from ftlab.studies.study import load_study

    whole = load_study(study, set_ or (), allow or ())
    chosen = whole.only(only or ()).with_shortcuts(not plain)
    if seeds is not None:
        chosen = chosen.with_seeds(_numbers(seeds))
    if dry_run:
        from ftlab.studies.estimate import estimate

        _console().print(estimate(chosen).rich())
        return
    from ftlab.reports.study_table import table as make_table
    from ftlab.studies.coordinator import run_study
    from ftlab.studies.engine import make_engine

    workers = 1 if workers is None and engine == "local" else workers
    outcome = run_study(chosen, tracking_uri, results, workers=workers, timeout=timeout,
                        engine=make_engine(engine, address))
    report = make_table(chosen, tracking_uri, results)
    _show(report, tracking_uri)
    for failure in outcome.failures:
        typer.secho(failure, err=True)
    if outcome.failed:
        raise typer.Exit(1)


@app.command()
def table(
    study: StudyFile,
    set_: Sets = None,
    tracking_uri: Uri = None,
    results: Results = Path("results"),
    allow: Allow = None,
) -> None:
    """Write a study's table again from the tracking store; trains nothing."""
    from ftlab.reports.study_table import table as make_table
    from ftlab.studies.study import load_study

    _show(make_table(load_study(study, set_ or (), allow or ()), tracking_uri, results), tracking_uri)


@app.command()
def plot(
    study: StudyFile,
    only: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="NAME", help="draw this figure alone; may be repeated"),
    ] = None,
    set_: Sets = None,
    tracking_uri: Uri = None,
    results: Results = Path("results"),
    allow: Allow = None,
) -> None:
    """Draw a study's figures again from the tracking store, as PNG and PDF."""
    from ftlab.reports.study_figures import plot as draw
    from ftlab.studies.study import load_study

    made = draw(load_study(study, set_ or (), allow or ()), tracking_uri, results, only or ())
    for name, caption in made.captions.items():
        _console().print(f"{name}: {caption}", markup=False, highlight=False)
    if not made.paths:
        typer.echo("Nothing to draw: no finished run has what the figure shows.")
        return
    typer.echo(f"Files: {', '.join(path.name for path in made.paths)} in {made.paths[0].parent}")


@app.command()
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
    from ftlab.studies.engine import make_engine
    from ftlab.sweeps.coordinator import directions, run_sweep
    from ftlab.sweeps.status import rich
    from ftlab.sweeps.sweep import load_sweep
    from ftlab.sweeps.tuned import write_tuned

    searched = load_sweep(file, allow or (), storage).with_shortcuts(not plain)
    outcome = run_sweep(searched, tracking_uri, results, workers=workers, timeout=timeout,
                        engine=make_engine(engine, address))
    first = directions(searched)[0]
    _console().print(rich(searched, outcome.standings, first))
    for failure in outcome.failures:
        typer.secho(failure, err=True)
    end = "Time is up; the same command continues."
    if outcome.over:
        tuned = write_tuned(searched, outcome.standings, first, f"ftlab sweep {file}")
        end = f"The tuned study: ftlab run {tuned}"
    written = report(searched, tracking_uri, results)
    for sentence in written.sentences:
        _console().print(sentence, markup=False, highlight=False)
    _files(written.paths, written.view, tracking_uri)
    typer.echo(end)
    if outcome.failures:
        raise typer.Exit(1)


@app.command()
def status(file: SweepFile, storage: StorageOption = None, allow: Allow = None) -> None:
    """Show how a sweep stands; from any terminal, while it goes on."""
    from ftlab.sweeps.coordinator import directions
    from ftlab.sweeps.status import rich
    from ftlab.sweeps.status import status as standing
    from ftlab.sweeps.sweep import load_sweep

    searched = load_sweep(file, allow or (), storage)
    _console().print(rich(searched, standing(searched), directions(searched)[0]))


@app.command()
def ui(
    tracking_uri: Uri = None,
    port: Annotated[int, typer.Option(help="on 127.0.0.1")] = 5000,
) -> None:
    """Open MLflow's web interface on the tracking store, on this machine only."""
    from ftlab.tracking.ui import serve

    raise typer.Exit(serve(tracking_uri, port))


@app.command("list")
def list_(
    room: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(metavar="[techniques|tasks|data|backbones]"),
    ] = None,
    allow: Allow = None,
) -> None:
    """List what a study may name, with each constructor's arguments."""
    from ftlab.studies.catalogue import catalogue

    for line in catalogue(room, allow or ()):
        _console().print(line, markup=False, highlight=False, soft_wrap=True)


@app.command()
def check(
    studies: Annotated[list[Path], typer.Argument(metavar="STUDY...", help="study files")],
    set_: Sets = None,
    allow: Allow = None,
) -> None:
    """Check study files, their data and their combinations, without running anything."""
    from ftlab.studies.plan import plan
    from ftlab.studies.study import load_study

    wrong = 0
    for path in studies:
        try:
            made = plan(load_study(path, set_ or (), allow or ()))
        except FtlabError as error:
            _complain(error)
            wrong += 1
            continue
        runs = len(made.cells) * len(made.study.seeds)
        typer.echo(f"{path}: ok, {len(made.cells)} cells, {runs} runs")
        for note in made.notes:
            typer.echo(f"  note: {note}")
    if wrong:
        raise typer.Exit(2)


@app.command()
def doctor(tracking_uri: Uri = None) -> None:
    """Look at this installation: versions, device, disk, tracking store."""
    from ftlab.studies.doctor import examine

    findings = examine(tracking_uri)
    for finding in findings:
        typer.echo(f"{'ok  ' if finding.good else 'BAD '} {finding.what}")
    if not all(finding.good for finding in findings):
        raise typer.Exit(1)


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--seeds {text}: not whole numbers", "--seeds 0,1,2") from None


def _console():  # type: ignore[no-untyped-def]  # rich is imported where it is used
    from rich.console import Console

    return Console()


def _show(report, tracking_uri: str | None) -> None:  # type: ignore[no-untyped-def]  # as above
    from ftlab.tracking.tracker import Tracker

    _console().print(report.rich())
    for sentence in report.sentences:
        _console().print(sentence, markup=False, highlight=False)
    _files(report.paths, Tracker(tracking_uri).view_path(report.study), tracking_uri)


def _files(paths: Sequence[Path], view: str, tracking_uri: str | None) -> None:
    typer.echo(f"Files: {', '.join(sorted(path.name for path in paths))} in {paths[0].parent}")
    option = f" --tracking-uri {tracking_uri}" if tracking_uri else ""
    typer.echo(f"Compare the runs: ftlab ui{option}  (http://127.0.0.1:5000{view})")


def _complain(error: FtlabError) -> None:
    typer.secho(f"error: {error.what}", err=True, fg=typer.colors.RED)
    if error.mend:
        typer.secho(f"  mend: {error.mend}", err=True)


def main() -> None:
    """Entry point: known errors as two lines, exit codes 0, 1, 2, 130, 143."""
    from ftlab.studies.dispatch import Interrupted, Signals

    signals = Signals()  # from the first moment: the imports alone take seconds
    try:
        app(standalone_mode=True)
    except FtlabError as error:
        _complain(error)
        sys.exit(2 if isinstance(error, InputError) else 1)
    except Interrupted as interrupted:
        typer.secho(f"\n{interrupted.name}: stopped; the same command continues", err=True)
        sys.exit(128 + interrupted.number)
    finally:
        signals.restore()


if __name__ == "__main__":
    main()
