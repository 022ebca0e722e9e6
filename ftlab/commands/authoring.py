"""`ftlab init` and `ftlab schema`: what helps to write study files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Optional

import typer

from ftlab.commands.show import say
from ftlab.errors import InputError
from ftlab.options import Allow


def schema(
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="FILE", help="instead of the terminal"),
    ] = None,
    allow: Allow = None,
) -> None:
    """Write the JSON Schema of study and sweep files, with which an editor completes and checks them.

    The first line of a file names it: # yaml-language-server: $schema=PATH
    """
    from ftlab.files import write
    from ftlab.sweeps.sweep_schema import file_schema

    text = json.dumps(file_schema(allow or ()), indent=1, ensure_ascii=False)
    if out is None:
        for line in text.splitlines():
            say(line)
        return
    write(out, f"{text}\n")
    say(f"{out}: begin a study file with  # yaml-language-server: $schema={out}")


def init(
    study: Annotated[Path, typer.Argument(metavar="FILE", help="study file to write")] = Path("study.yaml"),
    data: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="SOURCE", help="table, folder of class folders, package:NAME/PATH, hf:NAME"),
    ] = None,
    backbone: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="SOURCE", help="id of a hub, folder, package:NAME/PATH, or torchvision's name"),
    ] = None,
    techniques: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="NAMES", help="as `ftlab list techniques` has them, with commas between"),
    ] = None,
    minutes: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(min=0.1, help="that the study may take on this machine"),
    ] = None,
) -> None:
    """Write a first study file; what the options do not say is asked."""
    from ftlab.studies import first_study
    from ftlab.studies.names import check_name

    if study.exists():
        raise InputError(f"{study} is there already", f"ftlab init {study.stem}-2.yaml")
    name = check_name(study.stem, study)
    guessed = first_study.guess(data if data is not None else typer.prompt(
        "Data (table, folder of class folders, package:NAME/PATH, hf:NAME)"))
    say(f"  read by its {guessed.reason}, as {guessed.module}")
    if backbone is None:
        backbone = typer.prompt("Backbone (id of a hub, folder, package:NAME/PATH, torchvision's name)",
                                default=guessed.backbone)
    if techniques is None:
        techniques = typer.prompt("Techniques (ftlab list techniques)",
                                  default=",".join(first_study.TECHNIQUES))
    chosen = first_study.techniques_of([part.strip() for part in techniques.split(",") if part.strip()])
    if minutes is None:
        minutes = typer.prompt("Minutes that it may take on this machine", default=30.0, type=float)
    study.parent.mkdir(parents=True, exist_ok=True)
    text, notes = first_study.of_length(name, guessed, backbone, chosen, minutes)
    from ftlab.files import write

    write(study, text)
    for note in notes:
        say(f"note: {note}")
    say(f"{study}: ftlab check {study}, then ftlab run {study}")
