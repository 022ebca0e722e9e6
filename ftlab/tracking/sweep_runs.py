"""The MLflow side of a sweep: the parent run of each cell that is searched, a child for a trial."""

from __future__ import annotations

from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities import Param, Run, RunTag

from ftlab.tracking.election import elect
from ftlab.tracking.metric_facts import TAG
from ftlab.tracking.mlflow_runs import CLOCKS, MlflowRuns
from ftlab.tracking.mlflow_values import name_of
from ftlab.tracking.records import CellKey, TrialRecord
from ftlab.tracking.tags import ORIGIN, cell_names, facts_tags

_BATCH = 100  # params in one log_batch, MLflow's limit


def open_sweep(runs: MlflowRuns, client: MlflowClient, key: CellKey, sweep: str,
               facts: str = "") -> str:
    """Get or make the parent run of a cell's search, RUNNING; its id."""
    experiment = runs.experiment(key.study)
    wanted = f"tags.`ftlab.kind` = 'sweep' and tags.`ftlab.cell` = '{key.digest}'"
    tags = cell_names(key) | {
        "ftlab.kind": "sweep", "ftlab.cell": key.digest, "ftlab.sweep": sweep}
    tags |= facts_tags(facts)

    def search() -> list[Run]:
        return [run for run in runs.search(experiment, wanted)
                if run.data.tags.get("ftlab.sweep") == sweep]

    def make(candidate: Mapping[str, str]) -> str:
        run = client.create_run(experiment, run_name=f"sweep {sweep}: {key.title}",
                                tags={**tags, **ORIGIN, **candidate})
        return str(run.info.run_id)

    parent, made = elect(client, search, make)
    if not made:
        client.update_run(parent.info.run_id, status="RUNNING")
    return str(parent.info.run_id)


def open_trial(runs: MlflowRuns, client: MlflowClient, parent: str, number: int, attempt: int,
               searched: Mapping[str, str], config: Mapping[str, str], token: str, started: int
               ) -> str:
    """Make the run of an attempt at a trial; `token` finds it again when a try was cut off."""
    above = client.get_run(parent)
    wanted = f"tags.`mlflow.parentRunId` = '{parent}' and tags.`ftlab.trial` = '{number}'"
    earlier = runs.search(above.info.experiment_id, wanted)
    made = [run for run in earlier if run.data.tags.get("ftlab.id") == token]
    technique = above.data.tags["ftlab.technique"]
    if made:
        run = made[0]
        runs.open_again(run)
    else:
        for left in earlier:
            if left.info.status == "RUNNING" and left.info.start_time <= started + CLOCKS:
                client.log_batch(left.info.run_id, tags=[RunTag("ftlab.state", "LOST")])
                runs.end(left.info.run_id, "KILLED", "left unfinished by an earlier attempt")
        inherited = {name: value for name, value in above.data.tags.items()
                     if name.startswith("ftlab.") and name != "ftlab.kind" and not name.startswith(TAG)}
        tags = inherited | ORIGIN | {
            "ftlab.kind": "trial", "ftlab.trial": str(number), "ftlab.attempt": str(attempt),
            "ftlab.id": token, "mlflow.parentRunId": parent}
        run = client.create_run(above.info.experiment_id, start_time=started, tags=tags,
                                run_name=f"{technique} trial {number}")
    named = {name_of(f"{technique}.{name}"): value for name, value in searched.items()}
    entities = [Param(name, value) for name, value in {**config, **named}.items()]
    for start in range(0, len(entities), _BATCH):
        client.log_batch(run.info.run_id, params=entities[start : start + _BATCH])
    return str(run.info.run_id)


def trials(runs: MlflowRuns, study: str, sweep: str) -> list[TrialRecord]:
    """The last attempt at each trial of a sweep, by cell and number."""
    last: dict[tuple[str, int], TrialRecord] = {}
    attempts = runs.search(runs.experiment(study), "tags.`ftlab.kind` = 'trial'")
    for run in sorted(attempts, key=_rank):
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
