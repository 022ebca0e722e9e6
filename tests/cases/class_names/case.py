"""Classes that were one metric, `test/f1/__`: each has its own value, worked out from the predictions."""

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
from mlflow import MlflowClient
from sklearn.metrics import f1_score

# two letters each, composed and not, signs that MLflow takes for no letters, and ASCII's
NAMES = {"体育": "体育", "财经": "财经", "科技": "科技", "é": "é", "ü": "ü", "😀": "_1f600", "😢": "_1f622",
         "नी": "न_940", "नि": "न_93f", "C++": "C__", "a": "a", "A": "A", "خبر": "خبر"}
WORDS = ["good", "fine", "great", "bad", "poor", "awful", "film", "plot", "cast", "score", "the", "a", "of"]


def make(folder: Path) -> None:
    rows = [(f"{word} {other}", f"{name} raw")
            for name, word in zip(NAMES, WORDS, strict=True) for other in WORDS]
    with (folder / "train.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    study = folder / "study.yaml"
    classes = json.dumps({f"{name} raw": name for name in NAMES}, ensure_ascii=False)
    study.write_text(study.read_text(encoding="utf-8").replace("CLASSES", classes), encoding="utf-8")


def check(folder: Path) -> None:
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    [experiment] = client.search_experiments(filter_string="name = 'names'")
    [run] = client.search_runs([experiment.experiment_id], "tags.`ftlab.kind` = 'run'")
    [stored] = folder.glob("mlartifacts/**/predictions/test.parquet")
    said = pq.read_table(stored).to_pydict()
    for name, key in NAMES.items():
        expected = f1_score([each == name for each in said["target"]],
                            [each == name for each in said["prediction"]], zero_division=0)
        assert abs(run.data.metrics[f"test/f1/{key}"] - expected) < 1e-6, name
        raw = f"data.init_args.classes.{key if name != 'C++' else 'C__'} raw"
        assert run.data.params[raw] == name
    assert "test/f1/体育" in (folder / "results/names/table.tex").read_text(encoding="utf-8")
    assert "test/f1/体育" in (folder / "results/names/runs.csv").read_text(encoding="utf-8")
    for name in ("体育", "财经"):  # each has a file
        assert f"test/f1/{name}" in (folder / f"results/names/tables/test_f1_{name}.md").read_text(
            encoding="utf-8")
