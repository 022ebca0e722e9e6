"""Writes the cells, runs, sweeps and trials of studies to MLflow."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from ftlab.errors import FtlabError, InputError
from ftlab.redaction import redact
from ftlab.tracking import store, ui_layout
from ftlab.tracking.metrics import as_metrics, plain
from ftlab.tracking.mlflow_values import flatten, name_of, objective, tag_values
from ftlab.tracking.outbox import OUTAGE, one_line
from ftlab.tracking.records import CellKey
from ftlab.tracking.store_reader import StoreReader
from ftlab.tracking.sync import send_kept
from ftlab.tracking.writes import Write

Status = Literal["FINISHED", "FAILED", "KILLED"]


class Tracker(StoreReader):
    """A study's record in an MLflow store: experiment = study, parent run = cell, child = run.

    Of a sweep the parent run is the search of a cell, and the children are its trials.

    After `open_study` an outage of the store stops nothing: writes wait in order, later calls try
    them again, and `close` says what was not stored. What is opened during an outage gets an id
    of ours (`pending-...`), which every method understands.

    Args:
        uri: the store; None means MLFLOW_TRACKING_URI, else `sqlite:///mlflow.db` in the current
            folder. A SQLite file is made at the first use, not here.
        unsent: folder in which writes wait during an outage; `open_study` sends what earlier
            processes left there. None for memory alone.

    Raises:
        InputError: an address that cannot hold runs, or a server that does not answer.
    """

    def __init__(self, uri: str | None = None, unsent: Path | None = None) -> None:
        super().__init__(uri, unsent)
        self._opened: dict[str, tuple[str, int]] = {}  # run -> cell and seed
        self._done: dict[str, set[int]] = {}  # cell -> seeds known to be finished

    def open_study(self, study: str, tags: Mapping[str, str]) -> None:
        """Get or make the study's experiment, and send what earlier processes kept for it.

        Raises:
            InputError: the store cannot hold it; says why.
        """
        # Beside the database, absolute: the UI finds it wherever it is started.
        path = store.sqlite_path(self.uri)
        root = (path.parent / "mlartifacts").as_uri() if path else None
        try:
            with self._lock, store.quiet():
                store.past_rivals(
                    self._runs.open_experiment, study, root, tag_values(tags) | ui_layout.KIND)
        except OUTAGE as error:
            raise InputError(
                f"tracking store {redact(self.uri)}: cannot open study {study}: {one_line(error)}",
                "mend the store, or give another --tracking-uri",
            ) from error
        self.send_kept()

    def send_kept(self) -> None:
        """Send what earlier processes kept on disk for this store."""
        if self.unsent is not None:
            send_kept(self.unsent, redact(self.uri), self._send)

    def open_cell(self, key: CellKey, params: Mapping[str, Any], seeds: Sequence[int], order: int,
                  place: int = 0, facts: str = "") -> str:
        """The id of a cell's parent run, made where there is none; it expects `seeds` too.

        Args:
            key: names it.
            params: the cell's config, nested; written when the cell is made.
            seeds: to run.
            order: the cell's place in the study, for tables.
            place: its technique's place in the study, for its colour.
            facts: about its metrics, from `metric_facts.to_tag`.
        """
        values = (astuple(key), flatten(params), list(seeds), order, place, facts)
        return self._create(Write(f"cell {key.title}", "open_cell", values=values))

    def finished(self, cell_id: str) -> set[int]:
        """Seeds of the cell that have a FINISHED run.

        Raises:
            FtlabError: the store does not answer, and this tracker never knew the cell.
        """
        try:
            seeds = {run.seed for run in self.latest_runs(cell_id) if run.status == "FINISHED"}
        except FtlabError:
            if cell_id not in self._done:
                raise
            seeds = set()  # an outage: what this process saw is enough to go on
        self._done[cell_id] = seeds | self._done.get(cell_id, set())
        return set(self._done[cell_id])

    def open_run(self, cell_id: str, seed: int, params: Mapping[str, Any], token: str = "") -> str:
        """Make the run of a seed; every attempt is a run of its own, so metrics never mix.

        An earlier run of the seed that still says RUNNING was left by a kill and becomes KILLED.

        Args:
            cell_id: of its cell.
            seed: of the run.
            params: its config.
            token: a new one's name for itself; that of an earlier attempt, which goes on.
        """
        values = (seed, flatten(params), token or uuid4().hex, int(time.time() * 1000))
        run_id = self._create(Write(f"run of seed {seed}", "open_run", cell_id, values))
        self._opened[run_id] = (cell_id, seed)
        return run_id

    def log_metrics(self, run_id: str, metrics: Mapping[str, float], step: int, timestamp_ms: int
                    ) -> None:
        """Keep metrics for the next batch: at 500 waiting or after 3 s, or with `flush`.

        MLflow keeps nan; an infinity, which it would make 1.8e308, becomes nan and a tag.
        """
        with self._lock:
            batch, infinite = as_metrics(metrics, step, timestamp_ms)
            due = self._metrics.add(run_id, batch)
            if infinite:
                self.set_tags(run_id, {"ftlab.infinite": infinite})
            if due:
                self.flush()

    def set_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        """Replace metrics of a cell, whatever the clock of who wrote them before."""
        self._write("metrics", "set_metrics", run_id, dict(metrics), int(time.time() * 1000))

    def log_dataset(self, run_id: str, name: str, digest: str, source: str,
                    profiles: Mapping[str, Mapping[str, Any]]) -> None:
        """Say which data a run used.

        Args:
            run_id: the run.
            name: the data set's name in the study.
            digest: our own over every row; MLflow shows 36 characters, which end in the split's name
                but for train; the profile holds all.
            source: where it came from.
            profiles: sizes and the like of `train`, `validation` and `test`.
        """
        self._write(f"data set {name}", "data_sets", run_id, name, digest, redact(source),
                    {context: dict(profile) for context, profile in profiles.items()})

    def log_artifacts(self, run_id: str, directory: Path, artifact_path: str = "") -> None:
        """Copy the files in a folder to the run; during an outage the folder must stay.

        Raises:
            FileNotFoundError: no such folder.
        """
        if not directory.is_dir():
            raise FileNotFoundError(f"artifacts: no folder {directory}")
        self._write(f"artifacts {directory}", "artifacts", run_id, artifact_path, path=directory)

    def log_file(self, run_id: str, path: Path, artifact_path: str) -> None:
        """Copy a file to the run; during an outage it must stay."""
        self._write(str(path), "file", run_id, artifact_path, path=path)

    def discard(self, run_id: str, directory: Path) -> None:
        """Remove a folder once all that was logged of it before is stored."""
        self._write(f"folder {directory}", "discard", run_id, path=directory)

    def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
        """Store a text as one artifact of a run or cell."""
        self._write(artifact_file, "text", run_id, text, artifact_file)

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        self._write(f"tags {', '.join(tags)}", "log", run_id, (), tag_values(tags))

    def end_run(self, run_id: str, status: Status, reason: str = "") -> None:
        """Store what waits and end the run, with the reason as the tag `ftlab.reason`."""
        ended = int(time.time() * 1000)
        if status == "FINISHED" and run_id in self._opened:
            cell_id, seed = self._opened[run_id]
            self._done.setdefault(cell_id, set()).add(seed)
        self._write(status, "end", run_id, status, redact(reason), ended)

    def end_cell(self, cell_id: str, interrupted: bool = False) -> None:
        """Aggregate the cell's FINISHED runs onto it; it ends FINISHED, KILLED or FAILED."""
        ended = int(time.time() * 1000)
        self._write("aggregate", "end_cell", cell_id, interrupted, ended)

    def set_view(self, study: str, metric: str, names: Iterable[str] = ()) -> None:
        """Prepare the study's pages in the UI; see `ui_layout.study_tags`, `view_paths`."""
        self._write("view", "tag_experiment", study, ui_layout.study_tags(study, metric, names))

    def describe_study(self, study: str, note: str) -> None:
        """Set the experiment's description, Markdown; the UI shows it above the runs."""
        self._write("note", "tag_experiment", study, tag_values({ui_layout.NOTE: note}))

    def open_sweep(self, key: CellKey, sweep: str, facts: str = "") -> str:
        """Get or make the parent run of a cell's search, with facts about its metrics; its id."""
        values = (astuple(key), sweep, facts)
        return self._create(Write(f"sweep of {key.title}", "open_sweep", values=values))

    def open_trial(
        self, sweep_id: str, number: int, attempt: int,
        searched: Mapping[str, Any], config: Mapping[str, Any], token: str = "",
    ) -> str:
        """Make the run of one attempt at a trial; its id.

        Args:
            sweep_id: of the parent.
            number: of the trial.
            attempt: 1 for the first.
            searched: the hyperparameters, logged as `<technique>.<name>`, so that the UI's
                parallel coordinates show each technique's own.
            config: the trial's whole config.
            token: as of `open_run`.
        """
        values = (number, attempt, flatten(searched), flatten(config), token or uuid4().hex,
                  int(time.time() * 1000))
        return self._create(Write(f"trial {number}", "open_trial", sweep_id, values))

    def settle(self, run_id: str, state: str, values: Mapping[str, float]) -> None:
        """Say how a trial ended, and what it gave.

        Args:
            run_id: of the trial.
            state: COMPLETE, PRUNED, FAIL or LOST.
            values: by objective; of a pruned trial what it had reached.
        """
        metrics, _ = as_metrics({objective(name): value for name, value in values.items()}, 0,
                                int(time.time() * 1000))
        self._write(f"state {state}", "log", run_id, plain(metrics), {"ftlab.state": state})

    def end_sweep(self, sweep_id: str, status: Status, metrics: Mapping[str, float],
                  tags: Mapping[str, str]) -> None:
        """End a parent run with what the search found."""
        ended = int(time.time() * 1000)
        values, _ = as_metrics(metrics, 0, ended)
        self._write("end of the sweep", "end_sweep", sweep_id, plain(values), tag_values(tags),
                    status, ended)

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
        values = [objective(name) for name in objectives]
        text = ui_layout.sweep_state(sweep, axes, objectives, values, higher_is_better)
        self._write("view", "tag_experiment", study, {ui_layout.sweep_tag(sweep): text})

    def close(self) -> None:
        """Send what waits, for some seconds.

        Raises:
            FtlabError: something could not be stored; says what.
        """
        with self._lock:
            self._stage()
            self._outbox.drain()

    def _create(self, write: Write) -> str:
        with self._lock:
            self._stage()
            return self._outbox.create(write)

    def _write(self, what: str, action: str, run_id: str, *values: object,
               path: str | Path = "") -> None:
        whole = os.path.abspath(path) if path else ""
        with self._lock:
            self._stage()
            self._outbox.add(Write(f"{what} of {run_id}", action, run_id, values, whole))
            self._outbox.deliver()
