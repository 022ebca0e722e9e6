import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

Numbers = Mapping[str, Sequence[float]]


@pytest.fixture
def results(tmp_path: Path) -> Callable[..., Path]:
    """Writes a result folder: by technique, a test accuracy a seed; None is a failed run."""

    def make(name: str, numbers: Numbers, seeds: Sequence[int] | None = None,
             dataset: str = "bbc", provenance: Mapping[str, Any] | None = None,
             **costs: float) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        lines = [
            {"study": "small", "backbone": "minilm", "dataset": dataset, "technique": technique,
             "seed": seed, "status": "FAILED" if value is None else "FINISHED", "run_id": "r",
             "test/accuracy": "" if value is None else value,
             "cost/trainable_parameters": 1000, "cost/train_seconds": 10.0}
            | {f"cost/{cost}": value for cost, value in costs.items()}
            for technique, values in numbers.items()
            for seed, value in zip(seeds or range(len(values)), values, strict=True)
        ]
        with (folder / "runs.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(lines[0]))
            writer.writeheader()
            writer.writerows(lines)
        if provenance is not None:
            (folder / "provenance.json").write_text(json.dumps(provenance))
        return folder

    return make
