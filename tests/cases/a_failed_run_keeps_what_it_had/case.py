import csv
import json
from pathlib import Path

import pytest

from ftlab.errors import InputError
from ftlab.exports import restore


def check(folder: Path) -> None:
    (run,) = csv.DictReader((folder / "results/fails/runs.csv").open(encoding="utf-8"))
    assert run["status"] == "FAILED" and float(run["val/accuracy"]) >= 0
    (manifest,) = folder.glob("mlartifacts/**/checkpoint/manifest.json")
    said = json.loads(manifest.read_text(encoding="utf-8"))
    assert said["failed"].startswith("non-finite loss") and said["epoch"] == 1
    assert (manifest.parent / "delta.safetensors").stat().st_size > 0
    with pytest.raises(InputError, match="is FAILED: non-finite loss"), restore.restored(
            run["run_id"], f"sqlite:///{folder}/mlflow.db"):
        pass
    with pytest.raises(InputError, match="is that of a failed run: non-finite loss"):
        restore._specification(manifest.parent.parent, run["run_id"])
