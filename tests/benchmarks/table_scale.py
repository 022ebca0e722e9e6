"""`ftlab table` from a store of 10,000 runs with 20 metrics each: seconds and peak memory.

    python tests/benchmarks/table_scale.py [--json] [--predictions N]

The store is filled by SQL, outside the measured time: 10 techniques, 20 data sets, 50 seeds, each
run with its metrics, tags and 20 params; a run has no predictions unless N examples of them are
asked for, which are read and tested besides. Measured is the whole command in a process of its own,
imports included: with nothing remembered of the study's classes, as it is from then on, and with
`--columns datasets`.
"""

import argparse
import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from ftlab.studies.study import Study, load_study
from ftlab.tracking.tags import cell_tags
from ftlab.tracking.tracker import Tracker

TECHNIQUES, DATASETS, SEEDS, METRICS = 10, 20, 50, 20
SECONDS, MEMORY = 60.0, 2**30  # limits
COSTS = ("trainable_parameters", "total_parameters", "train_seconds", "peak_memory_bytes")
STUDY = {
    "name": "scale", "question": "How long does a table take?",
    "backbones": {"none": {"class_path": "HuggingFace", "init_args": {"source": "nowhere"}}},
    "datasets": {f"data{n}": {"class_path": "TextClassification", "init_args": {"train": f"{n}.csv"}}
                 for n in range(DATASETS)},
    "techniques": {f"probe{n}": {"class_path": "LinearProbe", "init_args": {"lr": 0.001 * (n + 1)}}
                   for n in range(TECHNIQUES)},
    "seeds": list(range(SEEDS)),
}


def rows(study: Study, experiment: str, artifacts: Path, examples: int) -> Iterator[tuple[str, tuple]]:
    """Table and row of everything that the store holds."""
    random = np.random.default_rng(0)
    target = random.integers(0, 2, max(examples, 1))
    for order, cell in enumerate(study.cells):
        cell_id = hashlib.md5(cell.key.digest.encode()).hexdigest()
        tags = cell_tags(cell.key, study.seeds, order, order)
        yield from run_rows(cell_id, cell.key.title, experiment, artifacts, tags, {})
        quality = 0.8 + 0.01 * int(cell.key.technique.removeprefix("probe"))
        for seed in study.seeds:
            run_id = hashlib.md5(f"{cell_id} {seed}".encode()).hexdigest()
            own = {name: tags[name] for name in tags if name not in ("ftlab.cell", "ftlab.seeds")}
            own |= {"ftlab.kind": "run", "ftlab.seed": str(seed), "ftlab.attempt": "1",
                    "mlflow.parentRunId": cell_id, "ftlab.provenance": "{}"}
            score = quality + float(random.normal(0, 0.01))
            if examples:
                right = random.random(examples) < score
                score = float(right.mean())
                keep(artifacts / run_id / "artifacts", target, right)
            metrics = {f"cost/{name}": 1000.0 for name in COSTS} | {"test/accuracy": score}
            metrics |= {f"test/other{n}": score for n in range(METRICS - len(metrics))}
            yield from run_rows(run_id, f"seed {seed}", experiment, artifacts, own, metrics)


def keep(folder: Path, target: np.ndarray, right: np.ndarray) -> None:
    """Predictions of one run, as a run writes them."""
    (folder / "predictions").mkdir(parents=True)
    said = np.where(right, target, 1 - target)
    pq.write_table(pa.table({
        "id": [f"example {n}" for n in range(len(target))], "target": [str(t) for t in target],
        "prediction": [str(t) for t in said], "scores": [[1.0 - t, float(t)] for t in said]}),
        folder / "predictions" / "test.parquet")


def run_rows(run_id: str, name: str, experiment: str, artifacts: Path, tags: dict[str, str],
             metrics: dict[str, float]) -> Iterator[tuple[str, tuple]]:
    """One MLflow run."""
    where = f"{artifacts.as_uri()}/{run_id}/artifacts"
    yield "runs", (run_id, name, "UNKNOWN", "", "", "ftlab", "FINISHED", 1, 2, "", "active", where,
                   experiment, None)
    for key, value in tags.items():
        yield "tags", (key, value, run_id)
    for key, value in metrics.items():
        yield "latest_metrics", (key, value, 1, 1, 0, run_id)
    if metrics:
        for number in range(20):
            yield "params", (f"technique.init_args.p{number}", "0.001", run_id)


def fill(folder: Path, examples: int) -> Path:
    """The study file; its store beside it."""
    path = folder / "scale.yaml"
    path.write_text(yaml.safe_dump(STUDY, sort_keys=False))
    study = load_study(path)
    tracker = Tracker(f"sqlite:///{folder}/mlflow.db")
    tracker.open_study(study.name, {})
    experiment = tracker.view_path(study.name).split("/experiments/")[1].split("/")[0]
    tracker.close()
    waiting: dict[str, list[tuple]] = {}
    for table, row in rows(study, experiment, folder / "mlartifacts", examples):
        waiting.setdefault(table, []).append(row)
    with sqlite3.connect(folder / "mlflow.db") as store:
        for table, found in waiting.items():
            marks = ", ".join("?" * len(found[0]))
            store.executemany(f"INSERT INTO {table} VALUES ({marks})", found)
    return path


def measure(folder: Path, *more: str) -> tuple[float, float, int]:
    """Seconds of `ftlab table` and of processor, and its highest memory, bytes."""
    begin = time.perf_counter()
    command = [sys.executable, "-m", "ftlab.cli", "table", "scale.yaml", *more]
    started = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL,
                               env={**os.environ, "FTLAB_CACHE": str(folder / "cache")})
    _, status, used = os.wait4(started.pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(command)} failed with status {status}")
    return time.perf_counter() - begin, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024


def main() -> int:
    """Measure, print; 1 where a limit is broken."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one object a row")
    parser.add_argument("--predictions", type=int, default=0, metavar="N", help="examples of a run")
    said = parser.parse_args()
    broken = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill(folder, said.predictions)
        for what, more in (("the first after an installation", ()), ("", ()),
                           ("", ("--columns", "datasets"))):
            seconds, busy, memory = measure(folder, *more)
            broken |= seconds > SECONDS or memory > MEMORY
            row = {"name": " ".join(("ftlab table", *more)) + f", {what}" * bool(what), "runs": TECHNIQUES * DATASETS * SEEDS,
                   "seconds": round(seconds, 1), "processor_seconds": round(busy, 1),
                   "mebibytes": round(memory / 2**20),
                   "load": round(os.getloadavg()[0], 1), "limit": f"{SECONDS:g} s, 1 GiB"}
            print(json.dumps(row) if said.json else
                  f"{row['name']}: {row['seconds']} s ({row['processor_seconds']} s of processor) and {row['mebibytes']} MiB for {row['runs']} "
                  f"runs (limit {row['limit']}; load {row['load']})", flush=True)
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
