"""The MLflow side of a study: experiments, parent and child runs, their tags."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from ftlab.redaction import redact
from ftlab.statistics.seed_summary import summarise
from ftlab.tracking import ui_layout
from ftlab.tracking.election import elect, elected
from ftlab.tracking.experiments import Experiments
from ftlab.tracking.metric_facts import named
from ftlab.tracking.metric_range import limits
from ftlab.tracking.metrics import as_metrics
from ftlab.tracking.mlflow_values import NOTHING, numbers, tag_values
from ftlab.tracking.records import CellKey, CellRecord, RunRecord, latest_per_seed
from ftlab.tracking.tags import (
    INHERITED,
    ORIGIN,
    cell_record,
    cell_tags,
    facts_tags,
    more_seeds,
    run_record,
    seed_of,
    seeds_of,
)

_BATCH = 100  # params in one log_batch, MLflow's limit
_PAGE = 250  # runs read at a time; MLflow's own objects take far more memory than the records
CLOCKS = 600_000  # milliseconds by which the clocks of two machines may differ
_DIGEST = 36  # characters of a data set's digest, MLflow's limit


class MlflowRuns(Experiments):
    """Reads and writes runs; every method may be called again after it failed half-way."""

    def open_cell(
        self, key: CellKey, params: Mapping[str, str], seeds: Sequence[int], order: int, place: int,
        facts: str = "",
    ) -> str:
        """Get or make the parent run; RUNNING again where an expected seed is not finished."""
        experiment = self.experiment(key.study)
        stated = facts_tags(facts)

        def make(candidate: Mapping[str, str]) -> str:
            tags = {**cell_tags(key, seeds, order, place), **stated, **candidate}
            return str(self._client.create_run(experiment, run_name=key.title, tags=tags)
                       .info.run_id)

        wanted = f"tags.`ftlab.kind` = 'cell' and tags.`ftlab.cell` = '{key.digest}'"
        cell, made = elect(self._client, lambda: self.search(experiment, wanted), make)
        cell_id = str(cell.info.run_id)
        if not made:  # by the params that a version stored, its hash is found again
            params = {name: text for name, text in params.items() if text not in NOTHING}
        self._log_params(cell_id, params, present=cell.data.params)
        if made:
            return cell_id
        tags = more_seeds(cell, seeds) | {"ftlab.order": str(order)} | stated
        self._client.log_batch(cell_id, tags=[RunTag(k, v) for k, v in tags.items()])
        if not {*seeds_of(cell), *seeds} <= self.finished(cell_id):
            self._say(cell, "")
            self._client.update_run(cell_id, status="RUNNING")
        return cell_id

    def open_run(
        self, cell_id: str, seed: int, params: Mapping[str, str], token: str, started: int
    ) -> str:
        """Make a child run; `token` finds it again when a first try was cut off.

        What was begun later than `started` is another process's, and lives: this write may have
        waited for days. Clocks of machines may differ by `CLOCKS`.
        """
        cell = self._client.get_run(cell_id)
        if cell.info.status != "RUNNING":  # another command had ended it
            self._client.update_run(cell_id, status="RUNNING")
        earlier = [run for run in self.children(cell) if seed_of(run) == seed]
        made = [run for run in earlier if run.data.tags.get("ftlab.id") == token]
        if made:
            run = made[0]
            self.open_again(run)
        else:
            for left in earlier:
                if left.info.status == "RUNNING" and left.info.start_time <= started + CLOCKS:
                    self.end(left.info.run_id, "KILLED", "left unfinished by an earlier process")
            tags = {k: v for k, v in cell.data.tags.items() if k in INHERITED} | {
                "ftlab.kind": "run",
                "ftlab.seed": str(seed),
                "ftlab.attempt": str(len(earlier) + 1),
                "ftlab.id": token,
                "mlflow.parentRunId": cell_id,
                ui_layout.NOTE: ui_layout.RUN_NOTE.format(seed=seed),
                **ORIGIN,
            }
            # The technique too: charts and comparisons show a run without its parent.
            name = f"{tags['ftlab.technique']} seed {seed}"
            run = self._client.create_run(
                cell.info.experiment_id, start_time=started, run_name=name, tags=tags
            )
        self._log_params(run.info.run_id, params)
        return str(run.info.run_id)

    def open_again(self, run: Run) -> None:
        """Let a run that ended early go on."""
        if run.info.status != "RUNNING":
            self._client.update_run(run.info.run_id, status="RUNNING")
        if "ftlab.reason" in run.data.tags:
            self._client.delete_tag(run.info.run_id, "ftlab.reason")

    def end(self, run_id: str, status: str, reason: str, ended: int | None = None) -> None:
        """Set the final status, and the reason as a tag."""
        if reason:
            tags = tag_values({"ftlab.reason": reason})
            self._client.log_batch(run_id, tags=[RunTag(k, v) for k, v in tags.items()])
        self._client.set_terminated(run_id, status, ended)

    def end_cell(self, cell_id: str, interrupted: bool, ended: int) -> None:
        """Aggregate the finished children onto the parent, and end it.

        Other processes may end children and the cell at the same moment: whoever writes last has
        looked after its writing.
        """
        done: set[str] | None = None
        while True:
            cell = self._client.get_run(cell_id)
            children = self._without_doubles(self.children(cell))
            record = cell_record(cell, [run_record(run) for run in children])
            if done == {run.run_id for run in record.finished}:
                return
            done = {run.run_id for run in record.finished}
            self._aggregate(cell, record, ended)
            begun = {run.seed for run in record.runs if run.status in ("FINISHED", "FAILED")}
            expected = begun | set(record.seeds)  # seeds may be added to those of the beginning
            complete = expected <= {run.seed for run in record.finished}
            status = "FINISHED" if complete else "KILLED" if interrupted else "FAILED"
            count = f"{len(done)} of {len(expected)} seeds finished"
            self._say(cell, "" if complete else count)
            self._client.set_terminated(cell_id, status, ended)

    def _aggregate(self, cell: Run, record: CellRecord, ended: int) -> None:
        """Log means over seeds and numeric settings, as far as the cell lacks them."""
        values: dict[str, float] = {}
        # what was tested first: the UI's comparison opens with a cell's first metric
        names = {name for run in record.finished for name in run.metrics}
        for name in sorted(names, key=lambda name: (not name.startswith("test/"), name)):
            summary = summarise(
                (run.metrics[name] for run in record.finished if name in run.metrics),
                limits(named(name, record.facts)))
            values |= summary.as_metrics(name)
        values |= numbers(cell.data.params)
        self._set(cell, values, ended)

    def set_metrics(self, run_id: str, values: Mapping[str, float], now: int) -> None:
        """Make these the metrics that are shown of a run, whatever another clock has written.

        MLflow shows the value of the latest timestamp.
        """
        self._set(self._client.get_run(run_id), values, now)

    def _set(self, run: Run, values: Mapping[str, float], now: int) -> None:
        present = {metric.key: metric for metric in run.data._metric_objs}
        now = max([now, *(metric.timestamp + 1 for metric in present.values())])
        metrics, _ = as_metrics(values, 0, now)
        new = [metric for metric in metrics if metric.key not in present
               or not _same(present[metric.key].value, metric.value)]
        for start in range(0, len(new), 500):
            self._client.log_batch(run.info.run_id, metrics=new[start : start + 500])

    def _without_doubles(self, runs: Sequence[Run]) -> list[Run]:
        """One run for each attempt: a retry inside a proxy or client may have made it twice.

        The one that nothing was logged to still says RUNNING, and is deleted.
        """
        ended = {run.data.tags.get("ftlab.id") for run in runs if run.info.status != "RUNNING"}
        kept = []
        for run in runs:
            token = run.data.tags.get("ftlab.id")
            if run.info.status == "RUNNING" and token and token in ended:
                self._client.delete_run(run.info.run_id)
            else:
                kept.append(run)
        return kept

    def finished(self, cell_id: str) -> set[int]:
        """Seeds with a FINISHED child."""
        children = self.children(self._client.get_run(cell_id))
        return {seed_of(run) for run in children if run.info.status == "FINISHED"}

    def latest(self, cell_id: str) -> tuple[RunRecord, ...]:
        """The run that counts of each seed."""
        return latest_per_seed(
            [run_record(run) for run in self.children(self._client.get_run(cell_id))])

    def log_dataset(self, run_id: str, name: str, digest: str, source: str,
                    profiles: Mapping[str, Mapping[str, Any]]) -> None:
        """Add a data set to the run's inputs, its profiles by context."""
        where, inputs = json.dumps({"uri": redact(source)}), []
        for context, profile in profiles.items():
            text = json.dumps({**profile, "fingerprint": digest}, sort_keys=True, default=str)
            # MLflow takes two inputs of one name and digest for one, and keeps the first alone
            end = "" if context == "train" else f"-{context}"
            data = Dataset(name[:500], digest[: _DIGEST - len(end)] + end, "local", where,
                           profile=redact(text))
            inputs.append(DatasetInput(data, [InputTag("mlflow.data.context", context)]))
        self._client.log_inputs(run_id, inputs)

    def data_sets(self, run_id: str) -> dict[str, dict[str, Any]]:
        """The profiles that `log_dataset` stored, by context."""
        inputs = self._client.get_run(run_id).inputs
        used = inputs.dataset_inputs if inputs is not None else []
        return {tag.value: json.loads(data_set.dataset.profile or "{}") for data_set in used
                for tag in data_set.tags if tag.key == "mlflow.data.context"}

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
            if kind == "cell" and elected(run):
                parents.append(run)
            elif kind == "run":
                made = run_record(run, shared)
                children.setdefault(made.cell_id, []).append(made)
        records = [cell_record(run, children.get(run.info.run_id, [])) for run in parents]
        order = {run.info.run_id: int(run.data.tags["ftlab.order"]) for run in parents}
        return sorted(records, key=lambda r: (order[r.cell_id], r.key.digest, r.cell_id))

    def children(self, cell: Run) -> list[Run]:
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
        """Store why a cell is not complete; an empty tag would stand there without a value."""
        if reason:
            self._client.log_batch(cell.info.run_id, tags=[RunTag("ftlab.reason", reason)])
        elif "ftlab.reason" in cell.data.tags:
            try:
                self._client.delete_tag(cell.info.run_id, "ftlab.reason")
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # another process was first
                    raise

    def _log_params(
        self, run_id: str, params: Mapping[str, str], present: Mapping[str, str] | None = None
    ) -> None:
        """Add the params that are not there yet; MLflow refuses to change one."""
        flat = [Param(k, v) for k, v in params.items() if k not in (present or {})]
        for start in range(0, len(flat), _BATCH):
            self._client.log_batch(run_id, params=flat[start : start + _BATCH])


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))
