"""One label column, as JSON, Parquet and CSV write it."""

import csv
import json
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

TEXTS = [f"the film number {i}" for i in range(60)]
LABELS = [i % 2 for i in range(60)]


def make(folder: Path) -> None:
    for name, labels in {"floats": list(map(float, LABELS)), "truth": list(map(bool, LABELS))}.items():
        parquet.write_table(pa.table({"text": TEXTS, "label": labels}), folder / f"{name}.parquet")
    spellings = [(0, "0", 0.0, "0.0"), (1, "1", 1.0, "1.0")]
    (folder / "mixed.jsonl").write_text("\n".join(
        json.dumps({"text": text, "label": spellings[label][i // 2 % 4]})
        for i, (text, label) in enumerate(zip(TEXTS, LABELS, strict=True))))
    for name, labels in {"integers": LABELS, "truth": list(map(bool, LABELS)),
                         "zeros": [f"0{label}" for label in LABELS]}.items():
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *list(zip(TEXTS, labels, strict=True))[:20]])

