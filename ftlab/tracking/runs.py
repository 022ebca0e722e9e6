"""The MLflow side of a study: experiments, parent and child runs, their tags."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from ftlab.errors import InputError
from ftlab.redaction import redact
from ftlab.tracking import view
from ftlab.tracking.aggregate import summarise
from ftlab.tracking.metrics import as_metrics
from ftlab.tracking.plain import flatten, numbers, tag_values
from ftlab.tracking.records import CellKey, CellRecord, RunRecord, latest_per_seed
from ftlab.tracking.tags import (
    INHERITED,
    ORIGIN,
    cell_record,
    cell_tags,
    join,
    run_record,
    seed_of,
    seeds_of,
)

_BATCH = 100  # params in one log_batch, MLflow's limit
_PAGE = 250  # runs read at a time; MLflow's own objects take far more memory than the records
_DIGEST = 36  # characters of a data set's digest, MLflow's limit


class Runs:
    """Reads and writes runs; every method may be called again after it failed half-way.

    Args:
        client: of the store; its errors pass through.
    """

    def __init__(self, client: MlflowClient) -> None:
        self._client = client
        self._experiments: dict[str, str] = {}

    def open_experiment(self, study: str, root: str | None, tags: Mapping[str, str]) -> None:
        """Get or make the experiment; `root` is where its artifacts go (None: the server's)."""
        found = self._client.get_experiment_by_name(study)
        if found is not None and found.lifecycle_stage != "active":
            raise InputError(
                f"study {study}: its MLflow experiment was deleted",
                f"mlflow experiments restore --experiment-id {found.experiment_id}, "
                "or name the study otherwise",
            )
        experiment = (
            found.experiment_id
            if found is not None
            else self._client.create_experiment(study, artifact_location=root)
        )
        self._experiments[study] = experiment
        note = found.tags.get(view.NOTE, "") if found is not None else ""
        # the table that an earlier run put below the question stays until the next one
        kept = {view.NOTE} if note.startswith(tags.get(view.NOTE, "")) and note else set()
        self.tag_experiment(study, {k: v for k, v in tags.items() if k not in kept})

    def tag_experiment(self, study: str, tags: Mapping[str, str]) -> None:
        """Set tags of a study's experiment."""
        for name, value in tags.items():
            self._client.set_experiment_tag(self.experiment(study), name, value)

    def experiment(self, study: str) -> str:
        """The id of a study's experiment.

        Raises:
            InputError: there is none.
        """
        if study not in self._experiments:
            found = self._client.get_experiment_by_name(study)
            if found is None or found.lifecycle_stage != "active":
                raise InputError(
                    f"study {study}: nothing is tracked of it", "run it first: ftlab run STUDY"
                )
            self._experiments[study] = found.experiment_id
        return self._experiments[study]

    def view_paths(self, study: str | None) -> dict[str, str]:
        """Where the prepared views of one study or of all are; see `view.paths`."""
        found: dict[str, str] = {}
        token, names = None, []
        while True:
            page = self._client.search_experiments(page_token=token)
            for each in page:
                paths = view.paths(each.name, each.experiment_id, each.tags)
                names += [each.name] if paths else []
                if study in (None, each.name):
                    found |= paths
            token = page.token
            if not token:
                break
        if study is not None and study not in names:
            there = f"there are: {', '.join(names)}" if names else "run it first: ftlab run STUDY"
            raise InputError(f"study {study}: nothing is tracked of it", there)
        return found

    def open_cell(
        self, key: CellKey, params: Mapping[str, Any], seeds: Sequence[int], order: int, place: int
    ) -> str:
        """Get or make the parent run; RUNNING again where an expected seed is not finished."""
        experiment = self.experiment(key.study)
        found = self.search(experiment, f"tags.`ftlab.cell` = '{key.digest}'")
        if not found:
            run = self._client.create_run(
                experiment, run_name=key.title, tags=cell_tags(key, seeds, order, place)
            )
            self._log_params(run.info.run_id, params)
            return str(run.info.run_id)
        cell = min(found, key=lambda run: (run.info.start_time, run.info.run_id))
        cell_id = str(cell.info.run_id)
        expected = sorted({*seeds_of(cell), *seeds})
        self._client.log_batch(
            cell_id,
            tags=[RunTag("ftlab.seeds", join(expected)), RunTag("ftlab.order", str(order))],
        )
        self._log_params(cell_id, params, known=cell.data.params)
        if not set(expected) <= self.finished(cell_id):
            self._say(cell, "")
            self._client.update_run(cell_id, status="RUNNING")
        return cell_id

    def open_run(
        self, cell_id: str, seed: int, params: Mapping[str, Any], token: str, started: int
    ) -> str:
        """Make a child run; `token` finds it again when a first try was cut off."""
        cell = self._client.get_run(cell_id)
        earlier = [run for run in self._children(cell) if seed_of(run) == seed]
        made = [run for run in earlier if run.data.tags.get("ftlab.id") == token]
        if made:
            run = made[0]
        else:
            for left in earlier:
                if left.info.status == "RUNNING":
                    self.end(left.info.run_id, "KILLED", "left unfinished by an earlier process")
            tags = {k: v for k, v in cell.data.tags.items() if k in INHERITED} | {
                "ftlab.kind": "run",
                "ftlab.seed": str(seed),
                "ftlab.attempt": str(len(earlier) + 1),
                "ftlab.id": token,
                "mlflow.parentRunId": cell_id,
                view.NOTE: view.RUN_NOTE.format(seed=seed),
                **ORIGIN,
            }
            # The technique too: charts and comparisons show a run without its parent.
            name = f"{tags['ftlab.technique']} seed {seed}"
            run = self._client.create_run(
                cell.info.experiment_id, start_time=started, run_name=name, tags=tags
            )
        self._log_params(run.info.run_id, params)
        return str(run.info.run_id)

    def end(self, run_id: str, status: str, reason: str, ended: int | None = None) -> None:
        """Set the final status, and the reason as a tag."""
        if reason:
            tags = tag_values({"ftlab.reason": reason})
            self._client.log_batch(run_id, tags=[RunTag(k, v) for k, v in tags.items()])
        self._client.set_terminated(run_id, status, ended)

    def end_cell(self, cell_id: str, interrupted: bool, ended: int) -> None:
        """Aggregate the finished children onto the parent, and end it."""
        cell = self._client.get_run(cell_id)
        record = cell_record(cell, [run_record(run) for run in self._children(cell)])
        done = record.finished
        values: dict[str, float] = {}
        # what was tested first: the UI's comparison opens with a cell's first metric
        names = {name for run in done for name in run.metrics}
        for name in sorted(names, key=lambda name: (not name.startswith("test/"), name)):
            summary = summarise(
                (run.metrics[name] for run in done if name in run.metrics), name)
            values |= summary.as_metrics(name)
        values |= numbers(cell.data.params)
        metrics, _ = as_metrics(values, 0, ended)
        for start in range(0, len(metrics), 500):
            self._client.log_batch(cell_id, metrics=metrics[start : start + 500])
        complete = set(record.seeds) <= {run.seed for run in done}
        status = "FINISHED" if complete else "KILLED" if interrupted else "FAILED"
        reason = "" if complete else f"{len(done)} of {len(record.seeds)} seeds finished"
        self._say(cell, reason)
        self._client.set_terminated(cell_id, status, ended)

    def finished(self, cell_id: str) -> set[int]:
        """Seeds with a FINISHED child."""
        children = self._children(self._client.get_run(cell_id))
        return {seed_of(run) for run in children if run.info.status == "FINISHED"}

    def latest(self, cell_id: str) -> tuple[RunRecord, ...]:
        """The run that counts of each seed."""
        return latest_per_seed(
            [run_record(run) for run in self._children(self._client.get_run(cell_id))])

    def log_dataset(
        self,
        run_id: str,
        name: str,
        digest: str,
        source: str,
        context: str,
        profile: Mapping[str, Any],
    ) -> None:
        """Add a data set to the run's inputs."""
        text = json.dumps({**profile, "fingerprint": digest}, sort_keys=True, default=str)
        where = json.dumps({"uri": redact(source)})
        data = Dataset(name[:500], digest[:_DIGEST], "local", where, profile=redact(text))
        used = [DatasetInput(data, [InputTag("mlflow.data.context", context)])]
        try:
            self._client.log_inputs(run_id, used)
        except MlflowException as error:
            if "unique" not in str(error).lower():
                raise
            # another coordinator added the data set between MLflow's look and its insert
            self._client.log_inputs(run_id, used)

    def data_sets(self, run_id: str) -> dict[str, dict[str, Any]]:
        """What `log_dataset` was told, by context."""
        inputs = self._client.get_run(run_id).inputs
        used = inputs.dataset_inputs if inputs is not None else []
        return {tag.value: json.loads(each.dataset.profile or "{}") for each in used
                for tag in each.tags if tag.key == "mlflow.data.context"}

    def file(self, run_id: str, name: str) -> bytes | None:
        """One of a run's files; None where it has none of that name."""
        folder = str(Path(name).parent)
        listed = self._client.list_artifacts(run_id, None if folder == "." else folder)
        if name not in {entry.path for entry in listed}:
            return None
        with tempfile.TemporaryDirectory() as work:
            return Path(self._client.download_artifacts(run_id, name, work)).read_bytes()

    def log_artifacts(self, run_id: str, directory: Path, artifact_path: str) -> None:
        """Copy a folder's files to the run.

        Raises:
            FileNotFoundError: the folder is gone, where MLflow would silently copy nothing.
        """
        if not directory.is_dir():
            raise FileNotFoundError(f"no folder {directory}")
        self._client.log_artifacts(run_id, str(directory), artifact_path or None)

    def cells(self, study: str) -> list[CellRecord]:
        """Every cell of the study, in its order."""
        children: dict[str, list[RunRecord]] = {}
        parents = []
        shared: dict[str, str] = {}
        for run in self._pages(self.experiment(study), "", _PAGE):
            kind = run.data.tags.get("ftlab.kind")
            if kind == "cell":
                parents.append(run)
            elif kind == "run":
                made = run_record(run, shared)
                children.setdefault(made.cell_id, []).append(made)
        records = [cell_record(run, children.get(run.info.run_id, [])) for run in parents]
        order = {run.info.run_id: int(run.data.tags["ftlab.order"]) for run in parents}
        return sorted(records, key=lambda r: (order[r.cell_id], r.key.digest, r.cell_id))

    def _children(self, cell: Run) -> list[Run]:
        wanted = f"tags.`mlflow.parentRunId` = '{cell.info.run_id}' and tags.`ftlab.kind` = 'run'"
        return list(self.search(cell.info.experiment_id, wanted))

    def search(self, experiment: str, wanted: str) -> list[Run]:
        """Every run of an experiment that MLflow's filter wants."""
        return list(self._pages(experiment, wanted))

    def _pages(self, experiment: str, wanted: str, size: int = 1000) -> Iterator[Run]:
        token = None
        while True:
            page = self._client.search_runs([experiment], wanted, max_results=size,
                                            page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _say(self, cell: Run, reason: str) -> None:
        """Why a cell is not complete; an empty tag would stand there as a name without a value."""
        if reason:
            self._client.log_batch(cell.info.run_id, tags=[RunTag("ftlab.reason", reason)])
        elif "ftlab.reason" in cell.data.tags:
            self._client.delete_tag(cell.info.run_id, "ftlab.reason")

    def _log_params(
        self, run_id: str, params: Mapping[str, Any], known: Mapping[str, str] | None = None
    ) -> None:
        """Add the params that are not known yet; MLflow refuses to change one."""
        flat = [Param(k, v) for k, v in flatten(params).items() if k not in (known or {})]
        for start in range(0, len(flat), _BATCH):
            self._client.log_batch(run_id, params=flat[start : start + _BATCH])
