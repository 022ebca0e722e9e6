"""The command line: its commands, known errors and exit codes."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ftlab.activity import quiet
from ftlab.commands import (
    authoring,
    clusters,
    drift,
    mcp_server,
    models,
    results,
    studies,
    sweeps,
    sync,
)
from ftlab.commands.json_lines import alone_on_stdout, for_programs
from ftlab.commands.show import FRESH, complain, disk_error, say
from ftlab.errors import FtlabError, InputError
from ftlab.files import is_full, is_of_disk
from ftlab.visible import guard_streams, presentable_line

TALKATIVE = ("torch.utils._pytree", "bitsandbytes")
"""Loggers that warn when torchao and bitsandbytes are imported, which transformers and PEFT do."""
UsageError: Any = typer.BadParameter.__base__  # the name that every version of Typer has


class Commands(TyperGroup):
    """The commands; a wrong argument, which may be a file's name, is quoted as text alone."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with _quoting_text():
            return super().make_context(*args, **kwargs)

    def invoke(self, *args: Any, **kwargs: Any) -> Any:
        with _quoting_text():
            return super().invoke(*args, **kwargs)


@contextmanager
def _quoting_text() -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        error.message = presentable_line(error.message)
        if for_programs():
            complain(InputError(error.message, "ftlab --help"))
        raise


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Compare full, partial and parameter-efficient fine-tuning: which, by how much, at what "
    "cost, and how sure.",
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        say(f"ftlab {version('ftlab')}")
        raise typer.Exit


@app.callback()
def _whole(version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version and stop")
] = False) -> None:
    """The options of the command line as a whole."""


for command in (studies.run, results.table, results.plot, results.report, drift.compare, drift.reproduce,
                sweeps.sweep, sweeps.status, sync.sync, results.ui, models.export, models.predict):
    app.command()(command)
app.command("list")(studies.list_)
app.command()(studies.check)
app.command()(authoring.init)
app.command()(authoring.schema)
app.command()(clusters.slurm)
app.command()(mcp_server.mcp)
app.command()(studies.lr)
app.command()(studies.transferability)
app.command()(studies.shift)
app.command()(studies.doctor)


def main() -> None:
    """Entry point: known errors as two lines, or as JSON; exit codes 0, 1, 2, 130, 138, 143."""
    with alone_on_stdout("--json" in sys.argv[1:]):  # before the rest is read, which may be wrong
        _main()


def _main() -> None:
    from ftlab.studies.dispatch import Interrupted, Signals
    from ftlab.studies.requeue import requeue

    signals = Signals()  # from the first moment: the imports alone take seconds
    guard_streams()
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
    FRESH.set("torch" not in sys.modules and threading.active_count() == 1)
    try:
        app(standalone_mode=True)
    except FtlabError as error:
        complain(error)
        sys.exit(2 if isinstance(error, InputError) and not is_full(error) else 1)
    except Interrupted as interrupted:
        typer.echo(err=True)
        stopped, again = f"{interrupted.name}: stopped", "the same command continues"
        if for_programs():
            complain(FtlabError(stopped, again))
        say(f"{stopped}; {again}", error=True)
        if interrupted.number == signal.SIGUSR1 and (said := requeue()):
            say(said, error=True)
        sys.exit(128 + interrupted.number)
    # the process's last resort: where a disk is full, libraries raise whatever they like
    except Exception as error:
        if not is_of_disk(error):
            if for_programs():
                complain(FtlabError(f"{type(error).__name__}: {error}",
                                    "a defect of ftlab; the traceback is on stderr"))
            raise
        complain(disk_error(error))
        sys.exit(1)
    finally:
        quiet()
        signals.restore()


if __name__ == "__main__":
    main()
