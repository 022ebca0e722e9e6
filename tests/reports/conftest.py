from collections.abc import Sequence
from dataclasses import replace

import pytest

from ftlab.tracking.records import CellKey, CellRecord, RunRecord


class Store:
    """Stands in for a tracker: cells made by hand, in the order they were made."""

    def __init__(self) -> None:
        self.records: list[CellRecord] = []

    def cells(self, study: str) -> list[CellRecord]:
        return [record for record in self.records if record.key.study == study]

    def history(self, run_id: str, metric: str) -> list[tuple[int, float]]:
        return []

    def sweeps(self, study: str) -> list[str]:
        return []

    def add(
        self,
        technique: str,
        values: Sequence[float],
        failed: Sequence[str] = (),
        seeds: int | None = None,
        backbone: str = "minilm",
        dataset: str = "bbc",
        trainable: float = 1000,
        metric: str = "test/accuracy",
    ) -> CellKey:
        """A cell with a FINISHED run a value and a FAILED one a reason."""
        key = CellKey("study", backbone, dataset, technique, "c0ffee")
        cost = {
            "cost/trainable_parameters": float(trainable),
            "cost/total_parameters": 1e6,
            "cost/train_seconds": 12.5,
            "cost/peak_memory_bytes": 3.0 * 2**20,
        }
        done = [
            self._run(key, s, "FINISHED", "", {metric: v, **cost}) for s, v in enumerate(values)
        ]
        gone = [
            self._run(key, len(done) + s, "FAILED", reason, {"train/loss": 9.0})
            for s, reason in enumerate(failed)
        ]
        expected = range(seeds if seeds is not None else len(done) + len(gone))
        self.records.append(CellRecord(f"cell {key.digest}", key, tuple(expected), (*done, *gone)))
        return key

    def rename(self, key: CellKey, **names: str) -> CellKey:
        new = replace(key, **names)
        self.records = [replace(r, key=new) if r.key == key else r for r in self.records]
        return new

    @staticmethod
    def _run(
        key: CellKey, seed: int, status: str, reason: str, metrics: dict[str, float]
    ) -> RunRecord:
        run_id = f"{key.digest[:8]}{seed}"
        return RunRecord(run_id, key.digest, seed, status, reason, metrics, {}, {}, seed, seed + 1)


@pytest.fixture
def store() -> Store:
    return Store()
