import csv
import json
import shutil
from pathlib import Path

import pytest


def make(folder: Path) -> None:
    shutil.copytree(folder / "gpt2", folder / "net")
    path = folder / "net" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"padding_side": "left"}))
    words = ["good film"], ["the plot of a film was very bad and not good"]
    rows = [f"{text} {'and ' * (i % 3)}a,{'xy'[i % 2]}" for i in range(12) for [text] in words]
    (folder / "texts.csv").write_text("\n".join(["text,label", *rows]) + "\n")


def check(folder: Path) -> None:
    """The head hardly moves, so that batches of one text and of sixteen give one loss."""
    with (folder / "results" / "left_padding" / "runs.csv").open(encoding="utf-8") as file:
        alone, beside = (float(run["test/loss"]) for run in csv.DictReader(file))
    assert alone == pytest.approx(beside, abs=1e-5)
