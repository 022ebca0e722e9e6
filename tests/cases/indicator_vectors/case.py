"""Labels drawn at random, as lists of 0 and 1."""

import csv
import json
import random
from pathlib import Path

NAMES = {"politics", "economy", "sport"}


def make(folder: Path) -> None:
    draw = random.Random(0)
    lines = [json.dumps({"text": f"the film number {i}",
                         "label": [float(draw.randint(0, 1)) for _ in NAMES]}) for i in range(150)]
    (folder / "lists.jsonl").write_text("\n".join(lines))
    lines[6] = json.dumps({"text": "a word", "label": ["sport"]})
    (folder / "mixed.jsonl").write_text("\n".join(lines))


def check(folder: Path) -> None:
    with next(folder.glob("results/*/runs.csv")).open() as file:
        [run] = csv.DictReader(file)
    assert {column.removeprefix("test/f1/") for column, value in run.items()
            if column.startswith("test/f1/") and value} == NAMES
