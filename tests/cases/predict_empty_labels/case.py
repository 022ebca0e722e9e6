"""Predictions of a finished run, through the Python verb and the file that it writes."""

import csv
from pathlib import Path

import ftlab

WORDS = {"1": ["good", "fine", "great"], "-1": ["bad", "poor", "awful"]}


def make(folder: Path) -> None:
    rows = [(f"the {word} film number {i}", label) for i in range(8)
            for label, words in WORDS.items() for word in words]
    with (folder / "train.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    sheet = [("id", "who", "text", "label"), ("7", "ann", "the good film", ""),
             ("9", "bob", "=the bad film", ""), ("9", "cyd", "the poor, poor film", " ")]
    with (folder / "empty.csv").open("w", newline="") as file:
        csv.writer(file).writerows(sheet)
    with (folder / "some.csv").open("w", newline="") as file:
        csv.writer(file).writerows([*sheet[:2], (*sheet[2][:3], "-1"), (*sheet[3][:3], "1")])
    (folder / "stray.csv").write_bytes(b"text\nthe good film \xe9\nthe bad film\n")


def check(folder: Path) -> None:
    with next(folder.glob("results/*/runs.csv")).open() as file:
        run = next(csv.DictReader(file))["run_id"]
    store = f"sqlite:///{folder / 'mlflow.db'}"
    [note] = ftlab.predict(run, folder / "stray.csv", store).notes
    assert note.endswith("is not UTF-8; bytes replaced")
    bare = ftlab.predict(run, folder / "empty.csv", store)
    assert not bare.metrics
    assert bare.columns["label"] == ["", "", " "]
    assert set(bare.columns["prediction"]) <= {"-1", "1"}
    with bare.write(folder / "said.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "who", "text", "label", "prediction", "score -1", "score 1"]
    assert [row["id"] for row in rows] == ["7", "9", "9"]
    assert [row["text"] for row in rows] == ["the good film", "'=the bad film", "the poor, poor film"]
    assert [row["prediction"] for row in rows] == bare.columns["prediction"]
    for row in rows:
        assert row["prediction"] == ("-1" if float(row["score -1"]) > float(row["score 1"]) else "1")
    some = ftlab.predict(run, folder / "some.csv", store)
    assert some.columns["prediction"] == bare.columns["prediction"]
    assert some.columns["target"] == [None, "-1", "1"]
    right = [some.columns["prediction"][1] == "-1", some.columns["prediction"][2] == "1"]
    assert some.metrics["accuracy"] == sum(right) / 2
