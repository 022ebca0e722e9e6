"""The command line's commands for the models of runs: parse, call one function, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from ftlab.commands.show import console, say
from ftlab.options import Allow, Uri

RunId = Annotated[
    str, typer.Argument(metavar="RUN", help="MLflow's id of a finished run, or its beginning")
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
    tracking_uri: Uri = None,
    allow: Allow = None,
) -> None:
    """Write a run's model as a folder that its own ecosystem loads without ftlab."""
    from ftlab.exports.export import export_run

    made = export_run(run, out, merged, onnx, register, tracking_uri, allow or ())
    if made.folder is not None:
        say(f"{made.folder}: {made.form} README.md says how to load it.")
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
    tracking_uri: Uri = None,
    allow: Allow = None,
) -> None:
    """Say what a run's model predicts for a file or folder, with labels or without."""
    from ftlab.exports.predictions import check_kind
    from ftlab.exports.predictions import predict as make

    if out is not None:
        check_kind(out)
    predictions = make(run, source, tracking_uri, allow or ())
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
