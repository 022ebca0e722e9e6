"""`ftlab run`, `check`, `list` and `doctor`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Optional

import typer

from ftlab import completion
from ftlab.commands.company import company
from ftlab.commands.json_lines import emit, error_of, for_programs
from ftlab.commands.show import FRESH, complain, console, say, show
from ftlab.errors import FtlabError, InputError
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
    StudyFile,
    Timeout,
    Uri,
    Workers,
    numbers,
)
from ftlab.wording import counted


def run(
    study: StudyFile,
    set_: Sets = None,
    seeds: Seeds = None,
    only: Only = None,
    dry_run: DryRun = False,
    workers: Workers = None,
    engine: EngineName = "local",
    address: Address = None,
    timeout: Timeout = 1800.0,
    plain: Plain = False,
    storage: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="FILE|URL", help="says who does which run, the same for all commands "
                     "that share a study [RESULTS/.queue/<study>.journal]"),
    ] = None,
    tracking_uri: Uri = None,
    mirror: Mirror = None,
    results: Results = Path("results"),
    allow: Allow = None,
    json: Json = False,
) -> None:
    """Run what is unfinished of a study, then show its table.

    The same command continues after an interruption and repeats nothing that is finished. Given
    twice, or on several machines with one storage and one tracking store, they share the runs.
    """
    from ftlab.commands import answers
    from ftlab.studies.analysis_keys import check_mirror
    from ftlab.studies.study import load_study

    whole = load_study(study, set_ or (), allow or ())
    chosen = whole.only(only or (), fixed=seeds is not None).with_shortcuts(not plain)
    if seeds is not None:
        chosen = chosen.with_seeds(numbers(seeds))
    mirrors = mirror and check_mirror(mirror, "--mirror")
    if dry_run:
        from ftlab.studies.dry_run import estimate

        foreseen = estimate(chosen)
        emit(answers.of_estimate(foreseen))
        console().print(foreseen.rich())
        return
    from ftlab.commands.event_display import EventDisplay
    from ftlab.reports.study_table import table as make_table
    from ftlab.studies.coordinator import need
    from ftlab.sweeps.study_runs import run_study

    workers = 1 if workers is None and engine == "local" else workers
    with company(need(chosen), engine, address, FRESH.get() and not allow, workers) as executor:
        outcome = run_study(chosen, tracking_uri, results, EventDisplay() if for_programs() else None,
                            workers, timeout, executor, storage=storage, mirror=mirrors)
    report = make_table(chosen, tracking_uri, results)
    emit({"event": "result", "failures": outcome.failures, **answers.of_table(report)})
    show(report, tracking_uri)
    for failure in outcome.failures:
        say(failure, error=True)
    if outcome.failed:
        raise typer.Exit(1)


def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="study and sweep files",
                                               autocompletion=completion.files)],
    set_: Sets = None,
    allow: Allow = None,
    json: Json = False,
) -> None:
    """Check study and sweep files, their data and their combinations, without running anything."""
    from ftlab.studies.check_study import check_machine, check_study
    from ftlab.studies.study import load_study
    from ftlab.studies.yaml_file import read

    wrong = 0
    for path in files:
        try:
            if "study" in read(path)[0]:
                from ftlab.sweeps.sweep import load_sweep

                sweep = load_sweep(path, allow or (), overrides=set_ or ())
                checked, notes, objectives = sweep.study, [*sweep.notes], sweep.measured
                planned = counted(sweep.searches * sum(map(sweep.trials_of, checked.cells)), "trial")
            else:
                checked, notes, objectives = load_study(path, set_ or (), allow or ()), [], {}
                cells = len(checked.cells)
                planned = counted(cells * len(checked.seeds), "run")
                if checked.until is not None:
                    planned = f"{cells * checked.until.first} to {planned}"
            notes += check_study(checked, objectives)
            check_machine(checked)
        except FtlabError as error:
            if for_programs():
                emit({"file": path, "ok": False, "error": error_of(error)})
            else:
                complain(error)
            wrong += 1
            continue
        emit({"file": path, "ok": True, "study": checked.name, "cells": len(checked.cells), "planned": planned,
              "notes": notes})
        say(f"{path}: ok, {counted(len(checked.cells), 'cell')}, {planned}")
        for note in notes:
            say(f"  note: {note}")
    if wrong:
        raise typer.Exit(2)


def list_(
    room: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(metavar="[techniques|tasks|data|backbones|trainer|CLASS]",
                       autocompletion=completion.listed),
    ] = None,
    study: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--for", metavar="STUDY", help="the techniques that fit this study's backbones "
                     "and data, and why the others do not"),
    ] = None,
    allow: Allow = None,
    json: Json = False,
) -> None:
    """List what a study may name, with each constructor's arguments."""
    from ftlab.studies.catalogue import catalogue
    from ftlab.studies.catalogue_entries import entries

    if study is not None:
        if room not in (None, "techniques"):
            raise InputError(f"--for is of techniques, and not of {room}",
                             f"ftlab list techniques --for {study}")
        from ftlab.studies.study import load_study
        from ftlab.studies.suitable import suitable

        found = list(suitable(load_study(study, (), allow or ())))
        emit({"techniques": [asdict(fit) for fit in found]})
        for fit in found:
            console().say(str(fit), soft_wrap=True)
        return
    if for_programs():
        emit(entries(room, allow or ()))
        return
    for line in catalogue(room, allow or ()):
        console().say(line, soft_wrap=True)


def lr(
    study: StudyFile,
    only: Only = None,
    low: Annotated[float, typer.Option(help="rate of the first step")] = 1e-7,
    high: Annotated[float, typer.Option(help="rate of the last step")] = 10.0,
    steps: Annotated[int, typer.Option(help="of each technique, at most")] = 100,
    set_: Sets = None,
    results: Results = Path("results"),
    allow: Allow = None,
) -> None:
    """Find learning rates: train some steps with a growing rate, and say where the loss falls fastest."""
    from ftlab.rate_range import find_rates
    from ftlab.studies.study import load_study

    loaded = load_study(study, set_ or (), allow or ()).only(only or ())
    for cell in find_rates(loaded, results, low, high, steps):
        say(f"{cell.key.title}: {cell.test.suggestion:.2g}, where the loss falls fastest "
            f"(the study has {cell.own:.2g}; {len(cell.test.rates)} steps)")
    say(f"Files: rates.csv, rates.pdf, rates.png in {results / loaded.name / 'lr'}")


def transferability(
    study: StudyFile,
    set_: Sets = None,
    tracking_uri: Uri = None,
    results: Results = Path("results"),
    allow: Allow = None,
) -> None:
    """Score the backbones of a study by their features alone, and hold that to its results."""
    from ftlab.studies.study import load_study
    from ftlab.transfer_scores import transferability as make

    made = make(load_study(study, set_ or (), allow or ()), tracking_uri, results, say)
    console().print(made.rich(console().width))
    say(f"Files: {', '.join(sorted(path.name for path in made.paths))} in {made.paths[0].parent}")


def shift(
    study: StudyFile,
    set_: Sets = None,
    results: Results = Path("results"),
    allow: Allow = None,
) -> None:
    """Say how far other domains lie from a study's own, as its backbones see them; nothing trains."""
    from ftlab.domain_shift import measure
    from ftlab.studies.study import load_study

    loaded = load_study(study, set_ or (), allow or ())
    title = ""
    for found in measure(loaded, results):
        heading = (f"{found.dataset} from {found.backbone}, {found.found.rows} examples each, against "
                   "validation:")
        if heading != title:
            say(title := heading)
        say(f"  {found}")
    say(f"File: {results / loaded.name / 'shift' / 'shift.csv'}")


def doctor(tracking_uri: Uri = None, json: Json = False) -> None:
    """Look at this installation: versions, device, disk, tracking store."""
    from ftlab.studies.doctor import examine

    findings = examine(tracking_uri)
    emit({"ok": all(finding.good for finding in findings),
          "checks": [{"ok": finding.good, "what": finding.what} for finding in findings]})
    for finding in findings:
        say(f"{'ok  ' if finding.good else 'BAD '} {finding.what}")
    if not all(finding.good for finding in findings):
        raise typer.Exit(1)
