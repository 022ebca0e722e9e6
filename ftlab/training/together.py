"""Several runs of one cell in one process, trained as one where their technique allows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ftlab.training.callbacks import Report
from ftlab.training.fit import Run
from ftlab.training.run import execute
from ftlab.training.search import search

Result = dict[str, float] | Exception
"""What a run measured, or why it failed."""


def execute_together(
    runs: Sequence[Run], reports: Sequence[Report], stops: Sequence[Callable[[], bool]] | None
) -> list[Result]:
    """Execute runs, or trials of a sweep, that differ in seed and in the technique's arguments.

    Args:
        runs: of equal backbone, data, trainer settings and class of technique.
        reports: each takes the events of its run.
        stops: None for whole runs (as `execute`); of trials (as `search`) each is asked after
            each validation whether its trial is to end.

    Returns:
        The final metrics of each; of a run that failed alone, its exception.
    """
    return [_alone(run, report, None if stops is None else stops[number])
            for number, (run, report) in enumerate(zip(runs, reports, strict=True))]


def _alone(run: Run, report: Report, stop: Callable[[], bool] | None) -> Result:
    try:
        return execute(run, report) if stop is None else search(run, report, stop)
    # whatever it was, this run alone fails and the others go on
    except Exception as error:  # noqa: BLE001
        return error
