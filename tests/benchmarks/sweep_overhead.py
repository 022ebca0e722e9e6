"""What a sweep's coordinator costs beside Optuna's own ask, report and tell on its own journal.

    python tests/benchmarks/sweep_overhead.py [--json] [--storage ADDRESS]

Both do the same trials in turn: a choice by TPE, three reports with a pruner, an end. Ours also
leases, locks and looks whether anything is left to do. Nothing is trained.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import optuna
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from ftlab.sweeps.storage import Storage
from ftlab.sweeps.sweep import Sweep, load_sweep
from ftlab.sweeps.trial_queue import TrialQueue

TRIALS = 500
WARM = 50  # trials, after which memory is measured first
REPORTS = 3
LIMIT = 0.020  # seconds a trial beyond the reference
MORE_MIB = 16.0  # that 450 trials and their records may take
STUDY = {
    "name": "overhead", "question": "What does a coordinator cost?",
    "backbones": {"none": {"class_path": "HuggingFace", "init_args": {"source": "nowhere"}}},
    "datasets": {"none": {"class_path": "TextClassification", "init_args": {"train": "no.csv"}}},
    "techniques": {"probe": "LinearProbe", "lora": "LoRA"},
    "seeds": [0], "trainer": {"max_epochs": REPORTS}, "select_by": "val/accuracy",
}


def a_sweep(folder: Path) -> Sweep:
    """Two cells, half of the trials each."""
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY))
    path = folder / "overhead.yaml"
    path.write_text(yaml.safe_dump({
        "study": str(folder / "study.yaml"), "trials": TRIALS // 2, "pruner": "Median"}))
    return load_sweep(path)


def ours(sweep: Sweep, address: str) -> Iterator[None]:
    """One trial a step."""
    board = TrialQueue(sweep, Storage(address), ["maximize"])
    while held := board.take():
        board.beat()
        for step in range(REPORTS):
            board.report(held, step, 0.5)
        board.complete(held, [0.5])
        board.over()
        yield


def optunas(sweep: Sweep, path: Path) -> Iterator[None]:
    """The same with Optuna alone."""
    storage = JournalStorage(JournalFileBackend(str(path)))
    searches = [
        (optuna.create_study(storage=storage, study_name=name, direction="maximize",
                             sampler=sweep.make_sampler(0), pruner=sweep.make_pruner()), space)
        for name, space in sweep.spaces.items()
    ]
    while True:
        for search, space in searches:
            trial = search.ask(dict(space))
            for step in range(REPORTS):
                trial.report(0.5, step)
                trial.should_prune()
            search.tell(trial, 0.5)
            yield


def taken(step: Iterator[None]) -> float:
    begin = time.perf_counter()
    next(step)
    return time.perf_counter() - begin


def mebibytes() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> int:
    """Measure, print; 1 where a limit is broken."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one object a row")
    parser.add_argument("--storage", help="ours on this instead of a journal in a temporary folder")
    said = parser.parse_args()
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    with tempfile.TemporaryDirectory() as name:
        sweep = a_sweep(Path(name))
        ones = ours(sweep, said.storage or str(Path(name) / "ours.journal"))
        others = optunas(sweep, Path(name) / "optuna.journal")
        reference, own = [], []
        for number in range(TRIALS):
            if number == WARM:  # before the rest, beside which the reference's own growth counts
                memory, files = mebibytes(), len(os.listdir("/proc/self/fd"))
            own.append(taken(ones))
            reference.append(taken(others))
        more, open_now = mebibytes() - memory, len(os.listdir("/proc/self/fd"))
    row = {"name": f"a trial of {TRIALS}: take, {REPORTS} reports, end",
           "reference_seconds": round(statistics.median(reference), 5),
           "ours_seconds": round(statistics.median(own), 5)}
    row["ratio"] = round(row["ours_seconds"] / row["reference_seconds"], 3)
    row["limit"] = f"reference + {LIMIT:g} s"
    row["goal"] = "no slower than the reference"
    flat = [
        {"name": f"MiB more after {TRIALS} trials than after {WARM}, both sides together",
         "reference_seconds": None, "ours_seconds": round(more, 1), "ratio": None,
         "limit": f"{MORE_MIB:g} MiB", "goal": "flat"},
        {"name": "open files more", "reference_seconds": None, "ours_seconds": open_now - files,
         "ratio": None, "limit": "0", "goal": "0"},
    ]
    for each in (row, *flat):
        print(json.dumps(each) if said.json else
              f"{each['name']}: {each['ours_seconds']} against {each['reference_seconds'] or '-'}"
              f" (limit {each['limit']})")
    beyond = row["ours_seconds"] - row["reference_seconds"]
    return int(beyond > LIMIT or more > MORE_MIB or open_now > files)


if __name__ == "__main__":
    sys.exit(main())
