"""One run where several processes would make one each: MLflow has no unique names for runs."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Mapping, Sequence

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from ftlab.errors import FtlabError

CANDIDATE = "ftlab.candidate"
"""The tag of a run that is not elected yet."""

VERDICT = "ftlab.first"
"""A param, `yes` or `no`. MLflow writes a param once: the first to say it decides for all."""

_TRIES = 20


def elected(run: Run) -> bool:
    """Return whether a run is one that counts; those of earlier versions were never candidates."""
    return CANDIDATE not in run.data.tags or run.data.params.get(VERDICT) == "yes"


def elect(
    client: MlflowClient, search: Callable[[], Sequence[Run]],
    make: Callable[[Mapping[str, str]], str],
) -> tuple[Run, bool]:
    """Get or make the run that all processes agree on.

    Each makes a candidate, and looks for others after that. It votes every other one down, and
    then itself up. Of two rivals the one that looks later sees the other: either it votes that one
    down in time, or finds it elected. Candidates of dead processes are voted down like others.

    Args:
        client: of the store.
        search: finds the runs in question, candidates too.
        make: makes a run with the tags given, and returns its id.

    Returns:
        The run, and whether it was made now.

    Raises:
        FtlabError: rivals prevented each other too often.
    """
    for attempt in range(_TRIES):
        first = _first(search())
        if first is not None:
            return first, False
        mine = make({CANDIDATE: "yes"})
        rivals = [run for run in search() if run.info.run_id != mine]
        first = _first(rivals)
        if first is None and not all(_vote(client, run.info.run_id, "no") for run in rivals):
            first = _first(search())
        elif first is None and _vote(client, mine, "yes"):
            client.delete_tag(mine, CANDIDATE)
            return client.get_run(mine), True
        _vote(client, mine, "no")
        if first is not None:
            return first, False
        time.sleep(random.uniform(0, 0.05 * (attempt + 1)))
    raise FtlabError("several processes make the same run in the store, and none gets through",
                     "give the same command again")


def _first(runs: Sequence[Run]) -> Run | None:
    """The elected run that was made first: earlier versions may have made several."""
    return min(filter(elected, runs), key=lambda run: (run.info.start_time, run.info.run_id),
               default=None)


def _vote(client: MlflowClient, run_id: str, verdict: str) -> bool:
    """Say the verdict on a run, and whether it holds; a run voted down is deleted."""
    try:
        client.log_param(run_id, VERDICT, verdict)
    except MlflowException as error:
        if error.error_code != "INVALID_PARAMETER_VALUE":  # another verdict, or deleted already
            raise
        return verdict == "no" and client.get_run(run_id).data.params.get(VERDICT) != "yes"
    if verdict == "no":
        with contextlib.suppress(MlflowException):  # a rival was first; it has no meaning any more
            client.delete_run(run_id)
    return True
