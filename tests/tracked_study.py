"""A small study as it stands in a store after its runs: written by hand, nothing is trained."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ftlab.reports.study_files import Report
from ftlab.reports.study_files import write as write_results
from ftlab.reports.study_results import StudyResults
from ftlab.reports.to_mlflow import publish
from ftlab.studies.paper_numbers import Paper
from ftlab.tracking.records import CellKey
from ftlab.tracking.tracker import Tracker

STUDY = "small"
QUESTION = "How much accuracy do cheaper techniques keep?"
SEEDS = (0, 1, 2)
LEARNING_RATES = {"full": 5e-5, "probe": 0.005, "lora": 1e-3, "lora16": 1e-3}
RANKS = {"lora": 4, "lora16": 16}
REACHED = {"full": (0.81, 0.84, 0.9), "probe": (0.71, 0.72, 0.73), "lora": (0.86, 0.8, 0.83),
           "lora16": (0.9,)}
PARAMETERS = {"full": 22_567_301.0, "probe": 1925.0, "lora": 75_653.0, "lora16": 151_306.0}


def config(technique: str) -> dict[str, Any]:
    arguments = {"lr": LEARNING_RATES[technique], "optim": {"weight_decay": 0.01}}
    if technique in RANKS:
        arguments["rank"] = RANKS[technique]
    return {"technique": {"class_path": "ftlab.techniques.lora.LoRA", "init_args": arguments},
            "trainer": {"max_epochs": 3}}


def fill(tracker: Tracker) -> list[CellKey]:
    """Four cells of three seeds; of the last one two seeds failed."""
    tracker.open_study(STUDY, {"mlflow.note.content": QUESTION})
    tracker.set_view(STUDY, "test/accuracy")
    keys = []
    for place, (technique, reached) in enumerate(REACHED.items()):
        keys.append(CellKey(STUDY, "minilm", "bbc", technique, "c0ffee"))
        cell = tracker.open_cell(keys[-1], config(technique), SEEDS, place, place)
        for seed in SEEDS:
            run = tracker.open_run(cell, seed, config(technique) | {"seed": seed})
            if seed >= len(reached):
                tracker.end_run(run, "FAILED", "loss is not finite in epoch 1")
                continue
            for epoch in range(1, 4):
                learned = reached[seed] * (1 - math.exp(-epoch))
                tracker.log_metrics(run, {"val/accuracy": learned, "val/loss": 1 - learned,
                                          "train/loss": 0.9 - learned}, 8 * epoch, epoch)
            tracker.log_metrics(run, {
                "test/accuracy": reached[seed], "test/f1/tech": reached[seed] / 2, "best_epoch": 3,
                "cost/trainable_parameters": PARAMETERS[technique],
                "cost/total_parameters": 22_641_029.0,
                "cost/train_seconds": 6 + PARAMETERS[technique] / 1e6 + seed,
                "cost/peak_memory_bytes": 1e8 + 10 * PARAMETERS[technique]}, 0, 4)
            tracker.end_run(run, "FINISHED")
        tracker.end_cell(cell)
    return keys


def write(study: str, cells: Sequence[CellKey], tracker: Tracker, results: Path,
          provenance: dict[str, Any], metric: str = "test/accuracy", higher_is_better: bool = True,
          tasks: Mapping[str, Any] | None = None, paper: Paper | None = None) -> Report:
    """The files of a study without a study file."""
    stored = StudyResults(study, metric, cells,
                          {record.key: record for record in tracker.cells(study)}, tasks or {},
                          tracker=tracker, higher_is_better=higher_is_better)
    return write_results(stored, results, provenance, paper)


def make_store(folder: Path) -> str:
    """The study, tracked and published; its address."""
    tracker = Tracker(f"sqlite:///{folder}/mlflow.db")
    keys = fill(tracker)
    publish(write(STUDY, keys, tracker, folder / "results", {}), tracker, QUESTION)
    # as a run does that goes on after the table was written: of metrics that no view knows
    (run,) = (run for run in tracker.cells(STUDY)[0].finished if run.seed == SEEDS[-1])
    tracker.log_metrics(run.run_id, {"a_later/metric": 1.0}, 0, 5)
    tracker.close()
    return tracker.uri
