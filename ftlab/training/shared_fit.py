"""Several runs of one cell in one process, trained as one where their technique allows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ftlab.training.event_log import Report
from ftlab.training.execute import execute
from ftlab.training.run import Run
from ftlab.training.shortcuts.base import NotApplicable, Result, Stops
from ftlab.training.shortcuts.take import members
from ftlab.training.trial import search


def execute_together(
    runs: Sequence[Run], reports: Sequence[Report], stops: Stops
) -> list[Result]:
    """Execute runs, or trials of a sweep, that differ in seed and in the technique's arguments.

    Args:
        runs: of equal backbone, data, trainer settings and class of technique.
        reports: each takes the events of its run.
        stops: None for whole runs (as `execute`); of trials (as `search`) each is asked after
            each validation whether its trial is to end.

    Returns:
        The final metrics of each; of a run that failed alone, its exception. What fails in the
        part that the runs share is raised.
    """
    reason = _why_alone(runs)
    if not reason:
        try:
            return _as_one(runs, reports, stops)
        except NotApplicable as error:
            reason = str(error)
    results = []
    for number, (run, report) in enumerate(zip(runs, reports, strict=True)):
        run.data = run.data.with_cached({})  # of what was tried
        report = _with_reason(reason, report) if len(runs) > 1 else report
        results.append(_alone(run, report, None if stops is None else stops[number]))
    return results


def _why_alone(runs: Sequence[Run]) -> str:
    """The reason against training runs together, known before anything is loaded; empty for none."""
    first = runs[0]
    if len(runs) == 1:
        return "there is no other run"
    if any(run.plain for run in runs):
        return "--plain"
    if len({type(run.technique) for run in runs}) > 1:
        return "the runs are of several techniques"
    if first.technique.together is None:
        return f"{type(first.technique).__name__} has no way of training several runs as one"
    if any(run.settings != first.settings for run in runs):
        return "the runs have different trainer settings"
    if any(run.record.get("data") != first.record.get("data") for run in runs):
        return "each seed has drawn examples of its own"
    if any(run.before for run in runs):
        return "stages come before"
    if first.settings.processes > 1:
        return "a run has several devices"
    return ""


def _as_one(runs: Sequence[Run], reports: Sequence[Report], stops: Stops) -> list[Result]:
    together = runs[0].technique.together
    shortcut = next((member for member in members() if member.together == together), None)
    if shortcut is None:
        raise NotApplicable(f"there is no shortcut {together!r}")
    return shortcut.fit_together(runs, reports, stops)


def _with_reason(reason: str, report: Report) -> Report:
    """Add to every decision on a shortcut why the run is trained by itself."""

    def add(event: dict[str, Any]) -> None:
        if event["event"] == "shortcut":
            event = {**event, "text": f"{event['text']}; trained by itself: {reason}"}
        report(event)

    return add


def _alone(run: Run, report: Report, stop: Callable[[], bool] | None) -> Result:
    try:
        return execute(run, report) if stop is None else search(run, report, stop)
    # whatever it was, this run alone fails and the others go on
    except Exception as error:  # noqa: BLE001
        return error
