"""Finds one run in a store by its id or the beginning of it, and gets its files."""

from __future__ import annotations

import re
from pathlib import Path

from mlflow.artifacts import download_artifacts
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from ftlab.errors import InputError
from ftlab.redaction import redact
from ftlab.tracking import store
from ftlab.tracking.outbox import OUTAGE, one_line
from ftlab.tracking.records import RunRecord
from ftlab.tracking.store_reader import StoreReader
from ftlab.tracking.tags import run_record

_ID = re.compile(r"[0-9a-f]{4,32}")
_MEND = "results/STUDY/runs.csv and `ftlab ui` show the ids of runs"
_NO_MODEL = {
    "trial": ("is a trial of a sweep, and trials keep no checkpoint",
              "run the tuned study that the sweep has written, and name one of its runs"),
    "sweep": ("is the parent of a sweep's trials, which keep no checkpoint",
              "run the tuned study that the sweep has written, and name one of its runs"),
}


class RunReader(StoreReader):
    """Looks at runs that are over."""

    def find(self, run: str) -> RunRecord:
        """The FINISHED run of an id, or of the beginning of one.

        Raises:
            InputError: no run, several, or one that has no model; says which.
        """
        path = store.sqlite_path(self.uri)
        if path is not None and not path.exists():
            raise InputError(f"no tracking store at {path}", "run a study first: ftlab run STUDY")
        wanted = run.strip().lower()
        if not _ID.fullmatch(wanted):
            raise InputError(f"run {run!r}: not an id of MLflow, nor at least 4 characters of one",
                             _MEND)
        runs = self._outbox.read(lambda: self._beginning_with(wanted))
        if not runs:
            raise InputError(f"no run {run} in {redact(self.uri)}", _MEND)
        if len(runs) > 1:
            shown = ", ".join(f"{match.info.run_id} ({match.info.run_name})" for match in runs[:5])
            more = f" and {len(runs) - 5} more" if len(runs) > 5 else ""
            raise InputError(f"{len(runs)} runs begin with {run}: {shown}{more}",
                             "give more of the id")
        return self._with_model(runs[0])

    def _beginning_with(self, wanted: str) -> list[Run]:
        if len(wanted) == 32:
            try:
                return [self._client.get_run(wanted)]
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return []
                raise
        experiments = self._client.search_experiments()
        return [run for experiment in experiments for run in self._runs.search(
            experiment.experiment_id, f"attributes.run_id LIKE '{wanted}%'")]

    def _with_model(self, run: Run) -> RunRecord:
        name, kind = run.info.run_id, run.data.tags.get("ftlab.kind", "")
        if run.info.lifecycle_stage != "active":
            raise InputError(f"run {name} was deleted", f"mlflow runs restore --run-id {name}")
        if kind == "cell":
            runs = self._outbox.read(lambda: self._runs.children(run))
            ids = ", ".join(f"{child.info.run_id} (seed {child.data.tags['ftlab.seed']})"
                            for child in runs if child.info.status == "FINISHED")
            raise InputError(f"{name} is a cell, whose runs have a model each",
                             f"name one of them: {ids or 'none is finished'}")
        if kind in _NO_MODEL:
            what, mend = _NO_MODEL[kind]
            raise InputError(f"{name} {what}", mend)
        if kind != "run":
            raise InputError(f"run {name} is not ftlab's", _MEND)
        record = run_record(run)
        if record.status != "FINISHED":
            reason = f": {record.reason}" if record.reason else ""
            raise InputError(f"run {name} is {record.status}{reason}",
                             "run its study again: what is finished is not repeated (what it had "
                             "trained is among its artifacts, its checkpoint marked as failed)")
        return record

    def cell(self, record: RunRecord) -> dict[str, float]:
        """The metrics of a run's cell, over its seeds."""
        cell = self._outbox.read(lambda: self._client.get_run(record.cell_id))
        return dict(cell.data.metrics)

    def download(self, run_id: str, artifact: str, directory: Path) -> Path:
        """Copy a file or folder of a run's artifacts below a folder.

        Raises:
            InputError: the run has none such, or its files have gone.
        """
        directory.mkdir(parents=True, exist_ok=True)
        try:
            with store.quiet():
                copied = Path(download_artifacts(
                    run_id=run_id, artifact_path=artifact, dst_path=str(directory),
                    tracking_uri=self.uri))
        except OUTAGE as error:
            raise InputError(f"run {run_id} has no {artifact}: {one_line(error)}",
                             "its artifacts were moved or deleted: put them back, or run the cell "
                             "again") from error
        return copied
