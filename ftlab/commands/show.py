"""Prints what commands have to say."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path

import typer

from ftlab.activity import quiet
from ftlab.commands.json_lines import emit, error_of, for_programs
from ftlab.errors import FtlabError
from ftlab.visible import beneath, presentable_line

FRESH = ContextVar("FRESH", default=False)
"""Set where this process was started for one command, and has computed nothing yet."""


def console():  # type: ignore[no-untyped-def]  # rich is imported where it is used
    """A terminal, or a file; of a command that a program reads, nowhere."""
    from ftlab.terminal import Terminal

    return Terminal(quiet=for_programs())


def say(line: str, error: bool = False, colour: str | None = None) -> None:
    """Print one line; prose that is no error is left out where a program reads.

    Args:
        line: what a terminal would obey in it is written out, newlines too.
        error: to stderr.
        colour: where a terminal has colours.
    """
    quiet()
    if for_programs() and not error:
        return
    typer.secho(presentable_line(line), file=beneath(sys.stderr if error else sys.stdout), fg=colour)


def show(report, tracking_uri: str | None) -> None:  # type: ignore[no-untyped-def]  # as above
    """A study's table, its answer, its files and where the UI has it."""
    from ftlab.tracking.tracker import Tracker

    console().print(report.rich(console().width))
    for table in filter(None, (report.quantized, report.paper)):
        from ftlab.reports.formats import terminal

        console().print(terminal(table, console().width))
    for sentence in report.sentences:
        console().say(sentence)
    files(report.paths, Tracker(tracking_uri).view_path(report.study), tracking_uri)


def files(paths: Sequence[Path], view: str, tracking_uri: str | None) -> None:
    """The files that were written, and the command that opens the UI."""
    say(f"Files: {', '.join(sorted(path.name for path in paths))} in {paths[0].parent}")
    option = f" --tracking-uri {tracking_uri}" if tracking_uri else ""
    say(f"Compare the runs: ftlab ui{option}  (http://127.0.0.1:5000{view})")


def disk_error(error: BaseException) -> FtlabError:
    """The two lines of an error for which something could not be written (`files.is_of_disk`)."""
    system = error.strerror if isinstance(error, OSError) else None
    where = error.filename if isinstance(error, OSError) else None
    reason = system or (str(error).splitlines() or [type(error).__name__])[0]
    return FtlabError(f"{where}: {reason}" if where else f"a file cannot be written: {reason}",
                      "free space there, or let it be written, and give the same command again: it "
                      "repeats only what is missing")


def complain(error: FtlabError) -> None:
    """Print what is wrong, and how to mend it, on stderr; for a program as an object on stdout."""
    if for_programs():
        emit({"error": error_of(error)})
        return
    say(f"error: {error.what}", error=True, colour=typer.colors.RED)
    if error.mend:
        say(f"  mend: {error.mend}", error=True)
