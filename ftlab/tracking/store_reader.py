"""Reads a study's cells, runs and sweeps from an MLflow store."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from threading import RLock
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run

from ftlab.errors import InputError
from ftlab.redaction import redact
from ftlab.tracking import gc_pause, store, ui_layout
from ftlab.tracking.election import elected
from ftlab.tracking.metric_facts import Record
from ftlab.tracking.metrics import MetricBuffer, plain
from ftlab.tracking.mlflow_runs import MlflowRuns
from ftlab.tracking.outbox import Outbox, T
from ftlab.tracking.records import CellKey, CellRecord, RunRecord, TrialRecord
from ftlab.tracking.sweep_runs import trials
from ftlab.tracking.tags import facts_of, key_of
from ftlab.tracking.writes import Write, Writer


class StoreReader:
    """The reading half of `Tracker`; what waits to be written is sent before it is read.

    Args:
        uri: as of `Tracker`.
        unsent: as of `Tracker`.

    Raises:
        InputError: an address that cannot hold runs, or a server that does not answer.
    """

    def __init__(self, uri: str | None = None, unsent: Path | None = None) -> None:
        self.uri, self.unsent = store.resolve(uri), unsent
        self._lock = RLock()
        self._outbox, self._metrics = Outbox(self._send, unsent, redact(self.uri)), MetricBuffer()
        if store.sqlite_path(self.uri) is None:
            self._runs  # noqa: B018  connects, so that a dead server is found before training

    @cached_property
    def _client(self) -> MlflowClient:
        return store.connect(self.uri)

    @cached_property
    def _runs(self) -> MlflowRuns:
        return MlflowRuns(self._client)

    @cached_property
    def _writer(self) -> Writer:
        return Writer(self._client, self._runs)

    def _send(self, write: Write, run: str) -> str:
        return self._writer.send(write, run)  # connects at the first write

    def flush(self) -> bool:
        """Send what waits, unless the store failed a moment ago; return whether all is stored."""
        with self._lock:
            self._stage()
            self._outbox.deliver()
            return not len(self._outbox)

    def _read(self, read: Callable[[], T]) -> T:
        with self._lock:
            return self._outbox.read(read)

    def _fresh(self, read: Callable[[], T]) -> T:
        """Read, with what waits sent first."""
        with self._lock:
            self.flush()
            return self._outbox.read(read)

    def _stage(self) -> None:
        for run_id, batch in self._metrics.take():
            what = f"{len(batch)} metrics of {run_id}"
            self._outbox.add(Write(what, "log", run_id, (plain(batch), {})))

    def latest_runs(self, cell_id: str) -> tuple[RunRecord, ...]:
        """The run that counts of each seed of a cell; raises FtlabError in an outage."""
        return self._fresh(lambda: self._runs.latest(self._outbox.id(cell_id)))

    def cells(self, study: str) -> list[CellRecord]:
        """The study's cells with the run that counts of each seed, in the study's order.

        Raises:
            InputError: there is no such study, or no store.
        """
        path = store.sqlite_path(self.uri)
        if path is not None and not path.exists():
            raise InputError(f"no tracking store at {path}", "run a study first: ftlab run STUDY")
        with gc_pause.none_is_made():
            return self._fresh(lambda: self._runs.cells(study))

    def stored_params(self, study: str) -> dict[CellKey, set[str]]:
        """Names of the params of each cell that a study's runs or sweeps have in the store.

        Of a cell that is searched they are those of its first trial.
        """
        path = store.sqlite_path(self.uri)
        if path is not None and not path.exists():
            return {}

        def read() -> dict[CellKey, set[str]]:
            try:
                experiment = self._runs.experiment(study)
            except InputError:  # nothing has run yet
                return {}
            names: dict[CellKey, set[str]] = {}
            for kind in ("cell", "sweep"):
                for parent in self._runs.search(experiment, f"tags.`ftlab.kind` = '{kind}'"):
                    runs = [parent] if kind == "cell" else self._runs.children(parent)
                    first = min(runs, key=lambda run: run.info.start_time, default=parent)
                    names.setdefault(key_of(parent), set(first.data.params))
            return names

        return self._fresh(read)

    def file(self, run: RunRecord, name: str) -> bytes | None:
        """One of a run's files; None where it has none of that name."""
        local = store.local_path(run.artifacts)
        if local is not None:
            path = local / name
            return path.read_bytes() if path.is_file() else None
        return self._read(lambda: self._runs.file(run.run_id, name))

    def data_sets(self, run_id: str) -> dict[str, dict[str, Any]]:
        """The profiles of a run's data sets by context: `train`, `validation`, `test`."""
        return self._read(lambda: self._runs.data_sets(run_id))

    def history(self, run_id: str, metric: str) -> list[tuple[int, float]]:
        """All values of a metric as (step, value), by step."""
        values = self._read(lambda: self._client.get_metric_history(run_id, metric))
        return sorted((value.step, value.value) for value in values)

    def logged(self, run_id: str) -> dict[str, int]:
        """The last step of each metric of a run.

        Raises:
            FtlabError: the store does not answer.
        """
        def read() -> dict[str, int]:
            run = self._client.get_run(self._outbox.id(run_id))
            return {name: max(point.step for point in self._client.get_metric_history(run.info.run_id, name))
                    for name in run.data.metrics}

        return self._fresh(read)

    def trials(self, study: str, sweep: str) -> list[TrialRecord]:
        """The last attempt at each trial of a sweep, by cell and number.

        Raises:
            InputError: there is no such study.
        """
        return self._fresh(lambda: trials(self._runs, study, sweep))

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

    def sampler(self, study: str, sweep: str) -> str:
        """The class that drew a sweep's trials; empty where an earlier version ended it, or none did."""
        return next((sampler for run in self._searches(study) if run.data.tags.get("ftlab.sweep") == sweep
                     and (sampler := run.data.tags.get("ftlab.sampler"))), "")

    def sweep_facts(self, study: str, sweep: str) -> list[Record]:
        """Records of the metrics of a sweep's cells; empty ones where an earlier version began it."""
        return [facts_of(run) for run in self._searches(study)
                if run.data.tags.get("ftlab.sweep") == sweep and elected(run)]

    def _searches(self, study: str) -> list[Run]:
        return self._fresh(lambda: self._runs.search(
            self._runs.experiment(study), "tags.`ftlab.kind` = 'sweep'"))

    def view_path(self, study: str) -> str:
        """The path of the study in the UI, after `http://127.0.0.1:PORT`."""
        return ui_layout.path(self._read(lambda: self._runs.experiment(study)))

    def view_paths(self, study: str | None = None) -> dict[str, str]:
        """The paths of each study (or this one), its curves and its sweeps in the UI: what -> path.

        Raises:
            InputError: there is no such study.
        """
        return self._read(lambda: self._runs.view_paths(study))

    def sweep_view_path(self, study: str, sweep: str) -> str:
        """The path of the sweep in the UI, after `http://127.0.0.1:PORT`."""
        return ui_layout.sweep_path(self._read(lambda: self._runs.experiment(study)), sweep)
