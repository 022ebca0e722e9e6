"""The tags that a cell and a run carry, and how they are read back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlflow.entities import Run

from ftlab.tracking.metric_facts import TAG, Record, from_tag
from ftlab.tracking.mlflow_values import LONGEST_TAG, shorten
from ftlab.tracking.palette import COLOURS
from ftlab.tracking.records import CellKey, CellRecord, RunRecord, latest_per_seed

COLOUR = "mlflow.runColor"
"""The colour of a run in the UI's charts."""

# Instead of the account and the script's path, which MLflow would take from the machine.
ORIGIN = {
    "mlflow.user": "ftlab",
    "mlflow.source.name": "ftlab",
    "mlflow.source.type": "LOCAL",
}
_NAMES = ("study", "backbone", "dataset", "technique", "config")
_LATER = "ftlab.seeds."  # begins the tag of a seed that was added to a cell that was there
INHERITED = (*(f"ftlab.{name}" for name in _NAMES), "ftlab.order", COLOUR)


def cell_names(key: CellKey) -> dict[str, str]:
    """The names that a cell, its runs and its trials share."""
    return {f"ftlab.{name}": getattr(key, name) for name in _NAMES}


def cell_tags(key: CellKey, seeds: Sequence[int], order: int, place: int) -> dict[str, str]:
    """The tags of a new parent run; `place` is its technique's in the study."""
    tags = {
        COLOUR: COLOURS[place % len(COLOURS)],
        "ftlab.kind": "cell",
        "ftlab.cell": key.digest,
        "ftlab.seeds": ",".join(map(str, sorted(set(seeds)))),
        "ftlab.order": str(order),
    }
    # as they are: cells are found by them
    return {name: shorten(value, LONGEST_TAG) for name, value in (cell_names(key) | tags).items()
            } | ORIGIN


def key_of(run: Run) -> CellKey:
    """The key of the cell of a parent run."""
    return CellKey(*(run.data.tags[f"ftlab.{name}"] for name in _NAMES))


def facts_tags(facts: str) -> dict[str, str]:
    """The text of a record of metrics as tags, none longer than every store takes."""
    parts = [facts[start : start + LONGEST_TAG] for start in range(0, len(facts), LONGEST_TAG)]
    return {f"{TAG}.{n}" if n else TAG: part for n, part in enumerate(parts)}


def facts_of(run: Run) -> Record:
    """The record of metrics that a parent run's tags hold."""
    tags, text = run.data.tags, ""
    for n in range(len(tags)):
        text += tags.get(f"{TAG}.{n}" if n else TAG, "")
    return from_tag(text)


def cell_record(cell: Run, runs: Sequence[RunRecord]) -> CellRecord:
    """A parent run with its children, of each seed the run that counts."""
    counted = latest_per_seed(list(runs))
    return CellRecord(str(cell.info.run_id), key_of(cell), seeds_of(cell), counted,
                      dict(cell.data.metrics), facts_of(cell))


def run_record(run: Run, shared: dict[str, str] | None = None) -> RunRecord:
    """A child run.

    Args:
        run: MLflow's.
        shared: every text seen so far; what many runs have in common is then in memory once.
    """
    once = {} if shared is None else shared

    def texts(entries: Mapping[str, str]) -> dict[str, str]:
        return {once.setdefault(k, k): once.setdefault(v, v) for k, v in entries.items()}

    tags = texts(run.data.tags)
    return RunRecord(
        run_id=str(run.info.run_id),
        cell_id=tags["mlflow.parentRunId"],
        seed=int(tags["ftlab.seed"]),
        status=str(run.info.status),
        reason=tags.get("ftlab.reason", ""),
        metrics={once.setdefault(k, k): value for k, value in run.data.metrics.items()},
        params=texts(run.data.params),
        tags=tags,
        started=int(run.info.start_time),
        ended=run.info.end_time,
        artifacts=str(run.info.artifact_uri),
    )


def seed_of(run: Run) -> int:
    """The seed of a child run."""
    return int(run.data.tags["ftlab.seed"])


def seeds_of(cell: Run) -> tuple[int, ...]:
    """The seeds expected of a parent run, in order."""
    tags = cell.data.tags
    later = [name.removeprefix(_LATER) for name in tags if name.startswith(_LATER)]
    return tuple(sorted({int(seed) for seed in (*tags["ftlab.seeds"].split(","), *later) if seed}))


def more_seeds(cell: Run, seeds: Sequence[int]) -> dict[str, str]:
    """Tags that let a parent run expect further seeds.

    A tag for each: of two processes that wrote one list, the second would take out again what the
    first put in.
    """
    return {f"{_LATER}{seed}": "expected" for seed in sorted(set(seeds) - set(seeds_of(cell)))}
