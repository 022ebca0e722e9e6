"""The command line's options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from ftlab import completion
from ftlab.errors import InputError

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY", help="study file (YAML)", autocompletion=completion.files)]
Sets = Annotated[
    Optional[list[str]],  # noqa: UP045  Typer reads annotations at run time
    typer.Option("--set", metavar="KEY=VALUE", help="override a value: trainer.max_epochs=1"),
]
Allow = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--allow", metavar="PACKAGE", help="package whose classes the study may name"),
]
Uri = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--tracking-uri", help="MLflow store [MLFLOW_TRACKING_URI, sqlite:///mlflow.db]"),
]
SweepFile = Annotated[Path, typer.Argument(metavar="SWEEP", help="sweep file (YAML)", autocompletion=completion.files)]
Workers = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(help="at a time; as many as there is room for unless said, but of `run` on this "
                 "machine 1, since several disturb each other's measured times"),
]
Timeout = Annotated[
    float, typer.Option(min=1, metavar="SECONDS", help="without a sign of life until a run fails")
]
StorageOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(metavar="FILE|URL", help="of the trials, instead of the sweep file's"),
]
EngineName = Annotated[
    Literal["local", "ray"],
    typer.Option("--engine", help="where runs are executed: this machine, or a Ray cluster"),
]
Address = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(metavar="HOST:PORT", help="of the Ray cluster [RAY_ADDRESS, this machine's]"),
]
PageFile = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--out", metavar="FILE", help="the page [RESULTS/<study>/report.html]"),
]
Results = Annotated[Path, typer.Option("--results", help="folder for tables and figures")]
Plain = Annotated[
    bool, typer.Option("--plain", help="without any shortcut: compute everything, every time")
]
Seeds = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="seeds instead of the study's: 0,1,2"),
]
Only = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(metavar="TECHNIQUE", help="run this technique alone; may be repeated",
                 autocompletion=completion.techniques),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="say what would run, for how long, and stop")
]
Mirror = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--mirror", metavar="TRACKER", help="show the runs there too, instead of where the "
                 "study says: tensorboard, wandb, trackio; may be repeated"),
]
Metrics = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--metric", metavar="NAME", help="to test, as test/accuracy [what the studies "
                 "report]; may be repeated"),
]
Json = Annotated[
    bool, typer.Option("--json", help="for programs: JSON on stdout, and nothing else there")
]
"""Read by `cli.main`, before anything else: a command line that cannot be parsed is an object too."""
Outs = Annotated[
    Optional[list[Path]],  # noqa: UP045
    typer.Option("--out", metavar="FILE", help="write it as .md or .csv; may be repeated"),
]


def numbers(text: str) -> list[int]:
    """The numbers of `--seeds`.

    Raises:
        InputError: the text is not whole numbers with commas between.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--seeds {text}: not whole numbers", "--seeds 0,1,2") from None
