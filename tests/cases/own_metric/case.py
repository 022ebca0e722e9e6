"""Cohen's kappa of the stored predictions, by scikit-learn."""

import csv
from pathlib import Path

import mlflow
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import cohen_kappa_score


def check(folder: Path) -> None:
    with (folder / "results/own/runs.csv").open() as file:
        [run] = csv.DictReader(file)
    path = mlflow.artifacts.download_artifacts(
        run_id=run["run_id"], artifact_path="predictions/test.parquet",
        tracking_uri=f"sqlite:///{folder}/mlflow.db")
    columns = pq.read_table(path).to_pydict()
    kappa = cohen_kappa_score(columns["target"], columns["prediction"])
    assert float(run["test/kappa"]) == pytest.approx(kappa, abs=1e-6)
