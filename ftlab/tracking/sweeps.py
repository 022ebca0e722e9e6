"""Sweeps in MLflow: a parent run for each cell that is searched, a child for each trial."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Param, RunTag

from ftlab.tracking.metrics import as_metrics
from ftlab.tracking.plain import flatten, tag_values
from ftlab.tracking.records import CellKey, TrialRecord
from ftlab.tracking.runs import Runs
from ftlab.tracking.tags import ORIGIN, cell_names
from ftlab.tracking.tracker import Status, Tracker

_BATCH = 100  # params in one log_batch, MLflow's limit


class SweepTracker(Tracker):
    """A sweep's record; the trials of a cell are children of one parent run of kind `sweep`."""

    def open_sweep(self, key: CellKey, sweep: str) -> str:
        """Get or make the parent run of a cell's search; its id."""
        with self._lock:
            self._stage()
            return self._outbox.create(
                f"sweep of {key.title}", lambda _: _open_sweep(self._runs, self._client, key, sweep)
            )

    def open_trial(
        self, sweep_id: str, number: int, attempt: int,
        searched: Mapping[str, Any], config: Mapping[str, Any],
    ) -> str:
        """Make the run of one attempt at a trial; its id.

        Args:
            sweep_id: of the parent.
            number: of the trial.
            attempt: 1 for the first.
            searched: the hyperparameters, logged under their own names, so that the UI's
                parallel coordinates show them.
            config: the trial's whole config.
        """
        started = int(time.time() * 1000)

        def make(token: str) -> str:
            parent = self._outbox.id(sweep_id)
            return _open_trial(self._runs, self._client, parent, number, attempt, searched,
                               config, started)

        with self._lock:
            self._stage()
            return self._outbox.create(f"trial {number}", make)

    def end_sweep(self, sweep_id: str, status: Status, metrics: Mapping[str, float],
                  tags: Mapping[str, str]) -> None:
        """End a parent run with what the search found."""
        ended = int(time.time() * 1000)

        def end(run_id: str) -> None:
            found, _ = as_metrics(metrics, 0, ended)
            said = [RunTag(name, value) for name, value in tag_values(tags).items()]
            self._client.log_batch(run_id, metrics=found, tags=said)
            self._client.set_terminated(run_id, status, ended)

        self._write("end of the sweep", sweep_id, end)

    def trials(self, study: str, sweep: str) -> list[TrialRecord]:
        """Of each trial of a sweep the last attempt, by cell and number.

        Raises:
            InputError: there is no such study.
        """
        with self._lock:
            self.flush()
            return self._outbox.read(lambda: _trials(self._runs, study, sweep))


def _open_sweep(runs: Runs, client: MlflowClient, key: CellKey, sweep: str) -> str:
    experiment = runs.experiment(key.study)
    wanted = f"tags.`ftlab.kind` = 'sweep' and tags.`ftlab.cell` = '{key.digest}'"
    found = [run for run in runs.search(experiment, wanted)
             if run.data.tags.get("ftlab.sweep") == sweep]
    if found:
        parent = min(found, key=lambda run: (run.info.start_time, run.info.run_id))
        client.update_run(parent.info.run_id, status="RUNNING")
        return str(parent.info.run_id)
    tags = tag_values(cell_names(key) | {
        "ftlab.kind": "sweep", "ftlab.cell": key.digest, "ftlab.sweep": sweep})
    run = client.create_run(experiment, run_name=f"sweep {sweep}: {key.title}", tags=tags | ORIGIN)
    return str(run.info.run_id)


def _open_trial(runs: Runs, client: MlflowClient, parent: str, number: int, attempt: int,
                searched: Mapping[str, Any], config: Mapping[str, Any], started: int) -> str:
    above = client.get_run(parent)
    wanted = f"tags.`mlflow.parentRunId` = '{parent}' and tags.`ftlab.trial` = '{number}'"
    for left in runs.search(above.info.experiment_id, wanted):
        if left.info.status == "RUNNING":
            client.log_batch(left.info.run_id, tags=[RunTag("ftlab.state", "LOST")])
            runs.end(left.info.run_id, "KILLED", "left unfinished by an earlier attempt")
    inherited = {name: value for name, value in above.data.tags.items()
                 if name.startswith("ftlab.") and name != "ftlab.kind"}
    tags = inherited | ORIGIN | {
        "ftlab.kind": "trial", "ftlab.trial": str(number), "ftlab.attempt": str(attempt),
        "mlflow.parentRunId": parent}
    technique = inherited["ftlab.technique"]
    run = client.create_run(above.info.experiment_id, start_time=started, tags=tags,
                            run_name=f"{technique} trial {number}")
    params = {**flatten(config), **flatten(searched)}
    entities = [Param(name, value) for name, value in params.items()]
    for start in range(0, len(entities), _BATCH):
        client.log_batch(run.info.run_id, params=entities[start : start + _BATCH])
    return str(run.info.run_id)


def _trials(runs: Runs, study: str, sweep: str) -> list[TrialRecord]:
    last: dict[tuple[str, int], TrialRecord] = {}
    found = runs.search(runs.experiment(study), "tags.`ftlab.kind` = 'trial'")
    for run in sorted(found, key=lambda r: (r.info.start_time, r.info.run_id)):
        tags = run.data.tags
        if tags.get("ftlab.sweep") != sweep:
            continue
        key = CellKey(*(tags[f"ftlab.{name}"]
                        for name in ("study", "backbone", "dataset", "technique", "config")))
        number = int(tags["ftlab.trial"])
        last[key.digest, number] = TrialRecord(
            run.info.run_id, key, number, tags.get("ftlab.state", "RUNNING"),
            tags.get("ftlab.reason", ""), dict(run.data.metrics), dict(run.data.params))
    return sorted(last.values(), key=lambda t: (t.key.title, t.number))
