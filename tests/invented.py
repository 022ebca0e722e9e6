"""A study that never ran: rows, curves and predictions drawn at random, for the figures' tests."""

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ftlab.reports.cell_summary import build
from ftlab.reports.study_results import StudyResults
from ftlab.studies.vary import Level
from ftlab.tasks.classification import Classification
from ftlab.tracking.records import CellKey, CellRecord, RunRecord, TrialRecord
from ftlab.tracking.tracker import Tracker

METRIC = "test/accuracy"
GROUPS = ("all", "worst", "north", "a / b")
BLOCKS = ("embeddings", *(f"encoder.layer.{n}" for n in range(6)), "head")


class Book(Tracker):
    """A tracker that holds in memory what figures read."""

    def __init__(self) -> None:  # connects to nothing
        self.records: list[CellRecord] = []
        self.files: dict[str, bytes] = {}
        self.curves: dict[tuple[str, str], list[tuple[int, float]]] = {}
        self.counts: dict[str, int] = {}
        self.tried: list[TrialRecord] = []

    def cells(self, study: str) -> list[CellRecord]:
        return self.records

    def file(self, run: RunRecord, name: str) -> bytes | None:
        return self.files.get(run.run_id) if name == "predictions/test.parquet" else None

    def history(self, run_id: str, metric: str) -> list[tuple[int, float]]:
        return self.curves.get((run_id, metric), [])

    def data_sets(self, run_id: str) -> dict[str, dict[str, Any]]:
        return {"train": {"classes": self.counts}}

    def sweeps(self, study: str) -> list[str]:
        return ["search"] if self.tried else []

    def sampler(self, study: str, sweep: str) -> str:
        return "RandomSampler"

    def trials(self, study: str, sweep: str) -> list[TrialRecord]:
        return self.tried


class Invented:
    """Makes a study's results.

    Args:
        techniques: how many, or their names.
        data_sets: likewise.
        seeds: of each cell.
        classes: how many, or their names; each has fewer training examples than the one before.
        epochs: of each run.
        examples: of the test split; 0 for no predictions.
        trials: of a sweep over each cell; 0 for no sweep.
    """

    def __init__(self, techniques: int | Sequence[str] = 3, data_sets: int | Sequence[str] = 1,
                 seeds: int = 3, classes: int | Sequence[str] = 4, epochs: int = 4,
                 examples: int = 60, trials: int = 0, seed: int = 0) -> None:
        self.draw = np.random.default_rng(seed)
        self.names = named("technique", techniques)
        self.classes = named("class", classes)
        self.book = Book()
        self.book.counts = {name: max(1, int(400 * 0.75**n)) for n, name in enumerate(self.classes)}
        self.keys = [CellKey("study", "minilm", data, name, "c0ffee")
                     for data in named("data", data_sets) for name in self.names]
        for key in self.keys:
            runs = [self._run(key, seed, epochs, examples) for seed in range(seeds)]
            self.book.records.append(CellRecord(f"cell {key.digest}", key, tuple(range(seeds)),
                                                tuple(runs)))
            self.book.tried += [self._trial(key, number) for number in range(trials)]

    def results(self, higher_is_better: bool = True, metric: str = METRIC) -> StudyResults:
        """As `collect` makes it."""
        tasks = {key.dataset: Classification() for key in self.keys}
        rows = [replace(row, stands=row.rank == 1)  # no pair is tested: it would take most of the time
                for row in build(self.keys, self.book.records, metric, higher_is_better)]
        return StudyResults("study", metric, self.keys,
                            {record.key: record for record in self.book.records}, tasks,
                            tracker=self.book, question="Which?",
                            higher_is_better=higher_is_better, rows=tuple(rows),
                            levels={"techniques": {name: Level(self.names[0], {"rank": 4**n})
                                                   for n, name in enumerate(self.names)}})

    def change(self, technique: str, **names: Any) -> None:
        """Changes every run of a technique: `status`, or `metrics` that are added."""
        self.book.records = [
            replace(record, runs=tuple(
                replace(run, **{**names, "metrics": run.metrics | names.get("metrics", {})})
                for run in record.runs))
            if record.key.technique == technique else record for record in self.book.records]

    def _run(self, key: CellKey, seed: int, epochs: int, examples: int) -> RunRecord:
        place, run_id = self.names.index(key.technique), f"{key.digest[:12]}{seed}"
        skill = 0.55 + 0.4 * ((7 * place) % 11) / 11
        right = skill
        if examples:
            right = self._predict(run_id, skill, examples)
        size = 10.0 ** (3 + place % 5) * (1 + place)
        metrics = {
            METRIC: right, "val/accuracy": right, "val/loss": 0.3, "train/epoch_loss": 0.2,
            "train/loss": 0.2, "epoch": float(epochs), "cost/trainable_parameters": size,
            "cost/total_parameters": 1e8, "cost/checkpoint_bytes": 4 * size,
            "cost/train_seconds": float(10 + place * self.draw.uniform(5, 6)),
            "cost/peak_memory_bytes": float(2e8 + 3e7 * place), "cost/train_flops": 3e9,
            "cost/inference_flops": 1e9, "cost/latency_seconds": 0.01 + 0.001 * place,
        }
        of_groups = {name: right * (0.6 + 0.1 * n) for n, name in enumerate(GROUPS)}
        metrics |= {f"test/accuracy_by_group/{name}": value for name, value in of_groups.items()}
        metrics["test/worst_accuracy"] = min(of_groups.values())
        metrics["test/gap_accuracy"] = max(of_groups.values()) - min(of_groups.values())
        metrics |= {f"retain.old/{kind}": -0.01 * place * (1 + n) * right
                    for n, kind in enumerate(("linear", "fixed"))}
        if place % 3 != 2:  # it trains one block alone
            metrics |= {f"train/{of}/{block}": 0.1 ** (3 * (of == "update_ratio")) * (2 + place + n)
                        * float(self.draw.uniform(0.01, 0.03)) for n, block in enumerate(BLOCKS)
                        for of in ("grad_norm", "update_ratio", "grad_zeros")}
        for epoch in range(1, epochs + 1):
            for name, value in (("epoch", epoch), ("train/epoch_loss", 2 / (epoch + place)),
                                ("val/accuracy", right * (1 - 0.5**epoch)),
                                ("train/loss", 2 / (epoch + place))):
                noise = 0 if name == "epoch" else self.draw.normal(0, 0.01)
                self.book.curves.setdefault((run_id, name), []).append((10 * epoch, value + noise))
        self.book.curves.setdefault((run_id, "val/accuracy"), []).append((10 * epochs + 1, 9.0))
        return RunRecord(run_id, key.digest, seed, "FINISHED", "", metrics, {},
                         {"ftlab.blocks": "\n".join(BLOCKS)}, seed, seed + 1)

    def _predict(self, run_id: str, skill: float, examples: int) -> float:
        numbers = np.random.default_rng(1)  # the same examples for all
        share = np.array(list(self.book.counts.values()), dtype=float)
        target = numbers.choice(len(share), examples, p=share / share.sum())
        hard = numbers.uniform(size=examples)
        right = 0.7 * hard + 0.3 * self.draw.uniform(size=examples) < skill
        guess = self.draw.integers(0, len(share), examples)
        said = np.where(right, target, guess)
        table = pa.table({"id": [f"row {n}" for n in range(examples)],
                          "target": [self.classes[n] for n in target],
                          "prediction": [self.classes[n] for n in said]})
        file = io.BytesIO()
        pq.write_table(table, file)
        self.book.files[run_id] = file.getvalue()
        return float((target == said).mean())

    def _trial(self, key: CellKey, number: int) -> TrialRecord:
        score = float(self.draw.beta(8, 2 + self.names.index(key.technique)))
        return TrialRecord(f"{key.digest[:8]}t{number}", key, number, "COMPLETE", "",
                           {"objective/val/accuracy": score}, {f"{key.technique}.lr": "0.1"})


def named(what: str, count: int | Sequence[str]) -> list[str]:
    """`class 1`, `class 2`, ...; names as they are."""
    return [f"{what} {n + 1}" for n in range(count)] if isinstance(count, int) else list(count)
