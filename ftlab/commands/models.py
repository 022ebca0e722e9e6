"""The command line's commands for the models of runs: parse, call one function, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from ftlab import completion
from ftlab.commands.json_lines import emit
from ftlab.commands.show import console, say
from ftlab.errors import InputError
from ftlab.options import Allow, Json, Sets, Uri

RunId = Annotated[
    str, typer.Argument(metavar="RUN|STUDY", autocompletion=completion.files,
                        help="MLflow's id of a finished run or its beginning, or a study file with --best "
                        "or --cell")
]
Best = Annotated[
    bool, typer.Option("--best", help="of a study: the cell, and its seed, with the best validation score")
]
CellName = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--cell", metavar="NAME", autocompletion=completion.techniques,
                 help="of a study: lora, or 'lora on bbc from minilm'; its best seed on validation"),
]
OneSeed = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--seed", help="of a study: the run with this seed, instead of the best"),
]


def export(
    run: RunId,
    out: Annotated[
        Optional[Path],  # noqa: UP045  Typer reads annotations at run time
        typer.Option(metavar="DIR", help="folder to make"),
    ] = None,
    merged: Annotated[
        bool, typer.Option("--merged", help="fold an adapter into the weights")
    ] = False,
    onnx: Annotated[bool, typer.Option("--onnx", help="write model.onnx as well")] = False,
    register: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="NAME", help="make a version in MLflow's model registry"),
    ] = None,
    best: Best = False,
    cell: CellName = None,
    seed: OneSeed = None,
    set_: Sets = None,
    push: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="REPO", help="send it to the Hugging Face hub: NAME or OWNER/NAME, a private "
                     "repository where there is none yet"),
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="a repository that --push makes is public")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="send nothing: --out DIR has what --push would send")
    ] = False,
    tracking_uri: Uri = None,
    allow: Allow = None,
) -> None:
    """Write a run's model as a folder that its own ecosystem loads without ftlab."""
    from ftlab.exports.export import export_run

    run = _chosen(run, best, cell, seed, set_, tracking_uri, allow)
    made = export_run(run, out, merged, onnx, register, tracking_uri, allow or (), push, public, dry_run)
    if made.folder is not None:
        say(f"{made.folder}: {made.form} README.md says how to load it.")
    if made.url:
        say(f"Sent: {made.url}")
    elif push is not None:
        say(f"Nothing was sent; {push} would get {', '.join(made.files)}")
    if made.version:
        say(f'Registered: mlflow.pyfunc.load_model("models:/{made.version}")')


def predict(
    run: RunId,
    source: Annotated[
        str, typer.Argument(metavar="INPUT", help="file or folder, as the run's data module reads it")
    ],
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="FILE", help=".csv or .parquet, instead of the terminal"),
    ] = None,
    best: Best = False,
    cell: CellName = None,
    seed: OneSeed = None,
    set_: Sets = None,
    tracking_uri: Uri = None,
    allow: Allow = None,
    json: Json = False,
) -> None:
    """Say what a run's model predicts for a file or folder, with labels or without."""
    from ftlab.commands.answers import of_predictions
    from ftlab.exports.predictions import check_kind
    from ftlab.exports.predictions import predict as make

    if out is not None:
        check_kind(out)
    run = _chosen(run, best, cell, seed, set_, tracking_uri, allow)
    predictions = make(run, source, tracking_uri, allow or ())
    emit(of_predictions(predictions, run))
    if out is None:
        console().print(predictions.rich())
    else:
        say(f"{predictions.write(out)}: {len(predictions)} predictions")
    scored = sum(target is not None for target in predictions.columns.get("target", []))
    if 0 < scored < len(predictions):
        say(f"Of the {scored} that have labels:")
    for name, value in predictions.metrics.items():
        say(f"{name} {value:.4f}")
    for note in predictions.notes:
        say(f"note: {note}")


def _chosen(run: str, best: bool, cell: str | None, seed: int | None, sets: list[str] | None,
            tracking_uri: str | None, allow: list[str] | None) -> str:
    """MLflow's id of the run that a command names by itself, or by its study.

    Raises:
        InputError: a study without saying which run of it, or options of a study with a run's id.
    """
    if not run.endswith((".yaml", ".yml")):
        if best or cell is not None or seed is not None or sets:
            raise InputError(f"{run} is no study file, and --best, --cell, --seed and --set are of a study",
                             "give the study file, or the run's id alone")
        return run
    if not best and cell is None:
        raise InputError(f"{run} has many runs", "--best, or --cell TECHNIQUE, says which")
    from ftlab.exports.chosen_run import choose
    from ftlab.studies.study import load_study

    chosen = choose(load_study(run, sets or (), allow or ()), cell, seed, tracking_uri)
    say(chosen.reason, error=True)
    return chosen.run_id
