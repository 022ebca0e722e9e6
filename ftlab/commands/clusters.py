"""`ftlab slurm`: the script for a cluster's queue."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from ftlab import completion
from ftlab.activity import quiet
from ftlab.options import Allow, Only, Results, Seeds, Sets, Uri
from ftlab.visible import beneath


def slurm(
    file: Annotated[Path, typer.Argument(metavar="STUDY", help="study or sweep file (YAML)",
                                         autocompletion=completion.files)],
    array: Annotated[int, typer.Option(min=1, help="commands that share the runs, each on nodes of its own")] = 1,
    nodes: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="of one run [the study's trainer.nodes]"),
    ] = None,
    gpus: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=0, help="of each node [the study's trainer.devices]"),
    ] = None,
    time: Annotated[str, typer.Option(metavar="HH:MM:SS", help="of each command; what is left goes back "
                                      "into the queue")] = "08:00:00",
    set_: Sets = None,
    seeds: Seeds = None,
    only: Only = None,
    storage: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="FILE|URL", help="of `run` and `sweep`, the same for all"),
    ] = None,
    tracking_uri: Uri = None,
    results: Results = Path("results"),
    allow: Allow = None,
) -> None:
    """Print an sbatch script that runs a study or a sweep: ftlab slurm STUDY > job.sh; sbatch job.sh."""
    from ftlab.studies.coordinator import need
    from ftlab.studies.slurm import job
    from ftlab.studies.study import load_study
    from ftlab.studies.yaml_file import read

    words = [str(file)]
    for option, values in (("--set", set_), ("--only", only), ("--allow", allow)):
        words += [word for value in values or () for word in (option, value)]
    for option, value in (("--seeds", seeds), ("--storage", storage)):
        words += [option, value] if value is not None else []
    words += ["--results", str(results)] if results != Path("results") else []
    if "study" in read(file)[0]:
        from ftlab.sweeps.sweep import load_sweep

        sweep = load_sweep(file, allow or (), storage, set_ or ())
        study, name, verb = sweep.study, sweep.name, "sweep"
    else:
        study = load_study(file, set_ or (), allow or ())
        name, verb = study.name, "run"
    study = study.only(only or ())
    store = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    made = job(study, need(study), name, ["ftlab", verb, *words], store, array, nodes, gpus, time)
    quiet()
    beneath(sys.stdout).write(made.script)  # as it is: `say` takes the user's name out of an address
