"""Sweeps in MLflow: a parent run for each cell that is searched, a child for each trial."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any
from uuid import uuid4

from mlflow.entities import Run

from ftlab.tracking import ui_layout
from ftlab.tracking.election import elected
from ftlab.tracking.metric_facts import TAG, Record, from_tag
from ftlab.tracking.metrics import as_metrics, plain
from ftlab.tracking.mlflow_runs import MlflowRuns
from ftlab.tracking.mlflow_values import flatten, name_of, tag_values
from ftlab.tracking.records import CellKey, TrialRecord
from ftlab.tracking.tracker import Status, Tracker
from ftlab.tracking.writes import Write


def objective(name: str) -> str:
    """The metric that holds what a trial gave for an objective.

    Not the objective's own name: of `val/accuracy` MLflow calls the last epoch's value the latest,
    and what counts is the best epoch's, or the mean over seeds.
    """
    return f"objective/{name}"


class SweepTracker(Tracker):
    """A sweep's record; the trials of a cell are children of one parent run of kind `sweep`."""

    def open_sweep(self, key: CellKey, sweep: str, facts: str = "") -> str:
        """Get or make the parent run of a cell's search, with facts about its metrics; its id."""
        values = (astuple(key), sweep, facts)
        return self._create(Write(f"sweep of {key.title}", "open_sweep", values=values))

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
        values = (number, attempt, flatten(searched), flatten(config), uuid4().hex,
                  int(time.time() * 1000))
        return self._create(Write(f"trial {number}", "open_trial", sweep_id, values))

    def settle(self, run_id: str, state: str, values: Mapping[str, float]) -> None:
        """Say how a trial ended, and what it gave.

        Args:
            run_id: of the trial.
            state: COMPLETE, PRUNED, FAIL or LOST.
            values: by objective; of a pruned trial what it had reached.
        """
        found, _ = as_metrics({objective(name): value for name, value in values.items()}, 0,
                              int(time.time() * 1000))
        self._write(f"state {state}", "log", run_id, plain(found), {"ftlab.state": state})

    def end_sweep(self, sweep_id: str, status: Status, metrics: Mapping[str, float],
                  tags: Mapping[str, str]) -> None:
        """End a parent run with what the search found."""
        ended = int(time.time() * 1000)
        found, _ = as_metrics(metrics, 0, ended)
        self._write("end of the sweep", "end_sweep", sweep_id, plain(found), tag_values(tags),
                    status, ended)

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
        return sorted({run.data.tags["ftlab.sweep"] for run in self._searches(study)})

    def parents(self, study: str, sweep: str) -> dict[str, str]:
        """The parent runs of a sweep: the cell's digest -> run id."""
        return {run.data.tags["ftlab.cell"]: str(run.info.run_id) for run in self._searches(study)
                if run.data.tags.get("ftlab.sweep") == sweep and elected(run)}

    def sweep_facts(self, study: str, sweep: str) -> list[Record]:
        """Records of the metrics of a sweep's cells; empty ones where an earlier version began it."""
        return [from_tag(run.data.tags.get(TAG, "")) for run in self._searches(study)
                if run.data.tags.get("ftlab.sweep") == sweep and elected(run)]

    def _searches(self, study: str) -> list[Run]:
        """The parent runs of all sweeps of a study."""
        with self._lock:
            self.flush()
            wanted = "tags.`ftlab.kind` = 'sweep'"
            return self._outbox.read(
                lambda: self._runs.search(self._runs.experiment(study), wanted))

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
        text = ui_layout.sweep_state(sweep, axes, objectives, told, higher_is_better)
        self._write("view", "tag_experiment", study, {ui_layout.sweep_tag(sweep): text})

    def sweep_view_path(self, study: str, sweep: str) -> str:
        """Where the UI shows the sweep, after `http://127.0.0.1:PORT`."""
        with self._lock:
            return ui_layout.sweep_path(self._outbox.read(lambda: self._runs.experiment(study)), sweep)


def _trials(runs: MlflowRuns, study: str, sweep: str) -> list[TrialRecord]:
    last: dict[tuple[str, int], TrialRecord] = {}
    found = runs.search(runs.experiment(study), "tags.`ftlab.kind` = 'trial'")
    for run in sorted(found, key=_rank):
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


def _rank(run: Run) -> tuple[bool, int, int, str]:
    """Orders attempts at a trial: what ended it comes last, wherever the clock says it began."""
    tags = run.data.tags
    over = tags.get("ftlab.state", "RUNNING") not in ("RUNNING", "LOST")
    return over, int(tags.get("ftlab.attempt", "1")), run.info.start_time, run.info.run_id
