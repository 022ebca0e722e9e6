"""`ftlab sync`."""

from __future__ import annotations

from pathlib import Path

import typer

from ftlab.commands.show import say
from ftlab.options import Results, Uri


def sync(results: Results = Path("results"), tracking_uri: Uri = None) -> None:
    """Send what runs kept on disk while the tracking store did not answer.

    Each value arrives once, however often this is interrupted and given again; `ftlab run` and
    `ftlab sweep` do the same before they go on.
    """
    from ftlab.tracking.sync import sync as send_all

    sent = send_all(results, tracking_uri)
    for file in sent:
        study = file.path.parent.parent.name
        say(f"{study}: {file.stored} writes stored")
        if file.problem:
            say(f"{study}: {file.problem}", error=True)
    if not sent:
        say(f"Nothing waits below {results}.")
    if any(file.waiting or file.refused for file in sent):
        raise typer.Exit(1)
