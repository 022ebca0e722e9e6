"""Sweeps in MLflow: a parent run for each cell that is searched, a child for each trial."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Param, RunTag

from ftlab.tracking import view
from ftlab.tracking.metrics import as_metrics
from ftlab.tracking.plain import flatten, name_of, tag_values
from ftlab.tracking.records import CellKey, TrialRecord
from ftlab.tracking.runs import Runs
from ftlab.tracking.tags import ORIGIN, cell_names
from ftlab.tracking.tracker import Status, Tracker

_BATCH = 100  # params in one log_batch, MLflow's limit


def objective(name: str) -> str:
    """The metric that holds what a trial gave for an objective.

    Not the objective's own name: of `val/accuracy` MLflow calls the last epoch's value the latest,
    and what counts is the best epoch's, or the mean over seeds.
    """
    return f"objective/{name}"


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
            searched: the hyperparameters, logged as `<technique>.<name>`, so that the UI's
                parallel coordinates show each technique's own.
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

    def settle(self, run_id: str, state: str, values: Mapping[str, float]) -> None:
        """Say how a trial ended, and what it gave.

        Args:
            run_id: of the trial.
            state: COMPLETE, PRUNED, FAIL or LOST.
            values: by objective; of a pruned trial what it had reached.
        """
        found, _ = as_metrics({objective(name): value for name, value in values.items()}, 0,
                              int(time.time() * 1000))
        tags = [RunTag("ftlab.state", state)]
        self._write(f"state {state}", run_id, self._client.log_batch, found, (), tags)

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

    def sweeps(self, study: str) -> list[str]:
        """Names of a study's sweeps.

        Raises:
            InputError: there is no such study.
        """
        with self._lock:
            self.flush()
            wanted = "tags.`ftlab.kind` = 'sweep'"
            found = self._outbox.read(
                lambda: self._runs.search(self._runs.experiment(study), wanted))
        return sorted({run.data.tags["ftlab.sweep"] for run in found})

    def parents(self, study: str, sweep: str) -> dict[str, str]:
        """The parent runs of a sweep: the cell's digest -> run id."""
        with self._lock:
            self.flush()
            wanted = "tags.`ftlab.kind` = 'sweep'"
            found = self._outbox.read(
                lambda: self._runs.search(self._runs.experiment(study), wanted))
        return {run.data.tags["ftlab.cell"]: str(run.info.run_id) for run in found
                if run.data.tags.get("ftlab.sweep") == sweep}

    def set_sweep_view(
        self, study: str, sweep: str, searched: Mapping[str, Sequence[str]],
        objectives: Sequence[str], higher_is_better: bool,
    ) -> None:
        """Prepare the sweep's page in the UI: its trials alone, and their parallel coordinates.

        Args:
            study: its name.
            sweep: its name.
            searched: by technique, its hyperparameters.
            objectives: of the sweep.
            higher_is_better: of the first objective.
        """
        axes = {technique: [name_of(f"{technique}.{name}") for name in names]
                for technique, names in searched.items() if names}
        told = [objective(name) for name in objectives]
        text = view.sweep_state(sweep, axes, objectives, told, higher_is_better)
        self._write("view", study, self._runs.tag_experiment, {view.sweep_tag(sweep): text})

    def sweep_view_path(self, study: str, sweep: str) -> str:
        """Where the UI shows the sweep, after `http://127.0.0.1:PORT`."""
        with self._lock:
            return view.sweep_path(self._outbox.read(lambda: self._runs.experiment(study)), sweep)


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
    named = {name_of(f"{technique}.{name}"): value for name, value in flatten(searched).items()}
    params = {**flatten(config), **named}
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
