"""`ftlab table`, `plot`, `report` and `ui`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from ftlab.commands.json_lines import emit
from ftlab.commands.show import console, say, show
from ftlab.options import (
    Allow,
    Json,
    PageFile,
    Results,
    Sets,
    StudyFile,
    Uri,
)


def table(
    studies: Annotated[list[Path], typer.Argument(metavar="STUDY...", help="study files (YAML)")],
    columns: Annotated[
        str,
        typer.Option(metavar="COLUMNS", help="datasets (a column a data set, with means over them), "
                     "datasets:METRIC, or a list: test/accuracy,val/loss,cost/train_seconds"),
    ] = "",
    set_: Sets = None,
    tracking_uri: Uri = None,
    results: Results = Path("results"),
    allow: Allow = None,
    json: Json = False,
) -> None:
    """Write a study's table again from the tracking store; trains nothing.

    With --columns, or several studies, another table beside it.
    """
    from ftlab.commands import answers
    from ftlab.reports.study_table import chosen_table
    from ftlab.reports.study_table import table as make_table
    from ftlab.studies.study import load_study

    loaded = [load_study(path, set_ or (), allow or ()) for path in studies]
    if len(loaded) == 1 and not columns:
        report = make_table(loaded[0], tracking_uri, results)
        emit(answers.of_table(report))
        show(report, tracking_uri)
        return
    chosen = chosen_table(loaded, columns, tracking_uri, results)
    emit(answers.of_chosen_table(chosen, [study.name for study in loaded]))
    console().print(chosen.rich(console().width))
    say(f"Files: {', '.join(sorted(p.name for p in chosen.paths))} in {chosen.paths[0].parent}")


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
        console().say(f"{name}: {caption}")
    if not made.paths:
        say("Nothing to draw: no finished run has what the figure shows.")
        return
    say(f"Files: {', '.join(path.name for path in made.paths)} in {made.paths[0].parent}")


def report(
    study: StudyFile,
    out: PageFile = None,
    set_: Sets = None,
    tracking_uri: Uri = None,
    results: Results = Path("results"),
    allow: Allow = None,
) -> None:
    """Write one HTML page that answers a study's question; trains nothing, loads nothing."""
    from ftlab.reports.study_report import report as make_report
    from ftlab.studies.study import load_study

    words = [word for option, values in (("--set", set_), ("--allow", allow))
             for value in values or () for word in (option, value)]
    whole = load_study(study, set_ or (), allow or ())
    path = make_report(whole, tracking_uri, results, out, ["ftlab", "run", str(study), *words])
    say(f"Open in a browser: {path} ({path.stat().st_size / 1e6:.1f} MB)")


def ui(
    study: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(metavar="[STUDY]", help="study file, or a name; every study without it"),
    ] = None,
    tracking_uri: Uri = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="on 127.0.0.1")] = 5000,
) -> None:
    """Open MLflow's web interface on the tracking store, on this machine only."""
    from ftlab.studies.yaml_file import study_name
    from ftlab.tracking.ui_server import serve

    serve(tracking_uri, port, say, study and study_name(study))
