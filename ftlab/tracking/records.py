"""A study as the tracking store holds it, read back: cells and their runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field

from ftlab.tracking.metric_facts import Record

TRAINING_SHARE = "ftlab.training_share"
"""Tag of a run whose seed draws its training examples: the part of those drawn from that trains."""


@dataclass(frozen=True)
class CellKey:
    """Names one cell of a study.

    Attributes:
        study: the study's name, an MLflow experiment.
        backbone, dataset, technique: their names in the study file.
        config: short hash of the cell's checked config, so that a changed cell is another cell.
    """

    study: str
    backbone: str
    dataset: str
    technique: str
    config: str

    @property
    def digest(self) -> str:
        """The text that the store is searched by; names may hold quotes, a digest cannot."""
        return hashlib.sha256(json.dumps(astuple(self)).encode()).hexdigest()[:32]

    @property
    def title(self) -> str:
        """For people: `lora on bbc from minilm`."""
        return f"{self.technique} on {self.dataset} from {self.backbone}"


@dataclass(frozen=True)
class RunRecord:
    """One run: a cell with one seed, fitted once.

    Attributes:
        status: MLflow's word: RUNNING, FINISHED, FAILED or KILLED.
        reason: why it is not FINISHED, one line, empty where nobody said.
        metrics: the last value of each metric.
        started, ended: milliseconds since 1970; `ended` is None while it runs.
        artifacts: where its files are, an address.
    """

    run_id: str
    cell_id: str
    seed: int
    status: str
    reason: str
    metrics: dict[str, float]
    params: dict[str, str]
    tags: dict[str, str]
    started: int
    ended: int | None
    artifacts: str = ""

    @property
    def attempt(self) -> int:
        """1 for the first run of this cell and seed, 2 for the next try."""
        return int(self.tags.get("ftlab.attempt", "1"))

    @property
    def data_sha256(self) -> str:
        """Fingerprint of its data set; where its seed has drawn the examples, of what it drew from."""
        return self.tags.get("ftlab.pool_sha256") or self.tags.get("ftlab.dataset_sha256", "")

    @property
    def seconds(self) -> float | None:
        """The run's time, its share where several runs had one process; None while it runs."""
        if self.ended is None:
            return None
        return self.metrics.get("cost/total_seconds", (self.ended - self.started) / 1000)

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of the model's blocks, from the input to the head; none where one block trains."""
        return tuple(self.tags.get("ftlab.blocks", "").splitlines())


@dataclass(frozen=True)
class TrialRecord:
    """One trial of a sweep, its last attempt.

    Attributes:
        run_id: MLflow's.
        key: the cell that it tries.
        number: of the trial; 0 is the study's own setting.
        state: RUNNING, COMPLETE, PRUNED, FAIL, or LOST where another attempt follows.
        reason: why it is not COMPLETE.
        metrics: the last value of each metric.
        params: of the trial, the searched ones under their own names.
        search: of the sweep; 0 is the first.
    """

    run_id: str
    key: CellKey
    number: int
    state: str
    reason: str
    metrics: dict[str, float]
    params: dict[str, str]
    search: int = 0


@dataclass(frozen=True)
class CellRecord:
    """One cell with its runs.

    Attributes:
        cell_id: MLflow's id of the parent run.
        seeds: those expected.
        runs: one per seed at most, by seed: the FINISHED one, else the latest attempt.
        metrics: of the cell itself: aggregates and what the table said.
        facts: about its runs' metrics.
    """

    cell_id: str
    key: CellKey
    seeds: tuple[int, ...]
    runs: tuple[RunRecord, ...]
    metrics: Mapping[str, float] = field(default_factory=dict)
    facts: Record = field(default_factory=dict)

    @property
    def finished(self) -> tuple[RunRecord, ...]:
        """The runs that count."""
        return tuple(run for run in self.runs if run.status == "FINISHED")

    @property
    def training_share(self) -> float:
        """The share that two seeds' training sets have in common, on average; 0 where seeds draw none."""
        return max((float(run.tags.get(TRAINING_SHARE, 0)) for run in self.finished), default=0.0)


def latest_per_seed(runs: list[RunRecord]) -> tuple[RunRecord, ...]:
    """One run per seed: FINISHED wins over others, then the later attempt."""
    best: dict[int, RunRecord] = {}
    for run in sorted(runs, key=lambda r: (r.status == "FINISHED", r.attempt, r.started, r.run_id)):
        best[run.seed] = run
    return tuple(best[seed] for seed in sorted(best))
