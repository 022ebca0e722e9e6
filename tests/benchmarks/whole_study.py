"""The study of default rates with all shortcuts against none (`--plain`), each as a user would run it.

    python tests/benchmarks/whole_study.py [--json] [--seeds 0,1,2]

Both sides are whole commands, imports and tables included, and start with an empty cache. The
tables must say the same: a run's test accuracy may differ by as many examples as rounding decides.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STUDY = Path(__file__).parents[2] / "experiments" / "default_rates.yaml"
LIMIT = 0.01
"""Largest difference of one run's accuracy, of 500 test examples or so."""


def run(folder: Path, seeds: str, *options: str) -> tuple[float, dict[tuple[str, str], float]]:
    """Seconds of the command, and the accuracy of each technique and seed."""
    folder.mkdir()
    begin = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "ftlab.cli", "run", str(STUDY), "--seeds", seeds, *options,
         "--results", "results", "--tracking-uri", "sqlite:///mlflow.db"],
        cwd=folder, env={**os.environ, "FTLAB_CACHE": str(folder / "cache")}, check=True,
        capture_output=True)
    seconds = time.perf_counter() - begin
    with (folder / "results" / "default_rates" / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(row["status"] == "FINISHED" for row in rows)
    return seconds, {(row["technique"], row["seed"]): float(row["test/accuracy"]) for row in rows}


def main() -> int:
    """Measure and print; 1 where the tables differ."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one object a row")
    parser.add_argument("--seeds", default="0,1,2", help="of the study")
    said = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        reference, plain = run(Path(name) / "plain", said.seeds, "--plain")
        ours, quick = run(Path(name) / "ours", said.seeds)
    assert plain.keys() == quick.keys()
    gap = max(abs(plain[key] - quick[key]) for key in plain)
    row = {"name": f"default rates, {len(plain)} runs", "reference_seconds": round(reference, 1),
           "ours_seconds": round(ours, 1), "ratio": round(reference / ours, 3), "limit": None,
           "goal": None, "largest_difference_of_accuracy": round(gap, 5)}
    print(json.dumps(row) if said.json else
          f"{row['name']}: {reference:.0f} s plain, {ours:.0f} s with all shortcuts, "
          f"{reference / ours:.2f} times as fast; accuracies differ by {100 * gap:.2f} points at most")
    return int(gap > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
