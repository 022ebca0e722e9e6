"""`ftlab schema`: what helps to write study files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Optional

import typer

from ftlab.commands.show import say
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
