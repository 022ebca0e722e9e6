"""The command line: its commands, known errors and exit codes."""

from __future__ import annotations

import sys

import typer

from ftlab.commands import drift, models, results, studies, sweeps, sync
from ftlab.commands.show import complain
from ftlab.errors import FtlabError, InputError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Compare full, partial and parameter-efficient fine-tuning: which, by how much, at what "
    "cost, and how sure.",
)
for command in (studies.run, results.table, results.plot, results.report, drift.compare, drift.reproduce,
                sweeps.sweep, sweeps.status, sync.sync, results.ui, models.export, models.predict):
    app.command()(command)
app.command("list")(studies.list_)
app.command()(studies.check)
app.command()(studies.doctor)


def main() -> None:
    """Entry point: known errors as two lines, exit codes 0, 1, 2, 130, 143."""
    from ftlab.studies.dispatch import Interrupted, Signals

    signals = Signals()  # from the first moment: the imports alone take seconds
    try:
        app(standalone_mode=True)
    except FtlabError as error:
        complain(error)
        sys.exit(2 if isinstance(error, InputError) else 1)
    except Interrupted as interrupted:
        typer.secho(f"\n{interrupted.name}: stopped; the same command continues", err=True)
        sys.exit(128 + interrupted.number)
    finally:
        signals.restore()


if __name__ == "__main__":
    main()
