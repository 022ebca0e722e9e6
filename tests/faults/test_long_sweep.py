"""A sweep of 200 trials: its coordinator does not grow."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from scripted import ScriptedEngine, epochs, write_sweep

from ftlab.sweeps.coordinator import run_sweep
from ftlab.sweeps.sweep import load_sweep
from ftlab.tracking.tracker import Tracker

TRIALS = 200
MEGABYTE = 2**20


def resident() -> float:
    """Megabytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MEGABYTE


@pytest.mark.slow
def test_two_hundred_trials__memory_and_open_files_stay(
    tmp_path: Path, tiny_bert: Path, reviews: Path, store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[tuple[float, int, float]] = []

    def play(specification: dict[str, Any], folder: Path) -> Iterator[dict[str, Any]]:
        seen.append((resident(), len(os.listdir("/proc/self/fd")), time.monotonic()))
        rate = specification["technique"]["init_args"]["lr"]
        yield from epochs(folder, [0.5 + rate / 10 + epoch / 100 for epoch in range(3)])

    path = write_sweep(tmp_path, tiny_bert, reviews, trials=TRIALS)
    outcome = run_sweep(load_sweep(path), store_uri, tmp_path / "results",
                        engine=ScriptedEngine(play, 2))
    assert outcome.over
    assert len(seen) == TRIALS
    (sweep,) = Tracker(store_uri).sweeps("small")
    states = [trial.state for trial in Tracker(store_uri).trials("small", sweep)]
    assert states == ["COMPLETE"] * TRIALS
    memory, files, times = zip(*seen, strict=True)
    early, late = statistics.fmean(memory[40:60]), statistics.fmean(memory[-20:])
    gaps = [b - a for a, b in pairwise(times)]
    print(f"RSS {early:.1f} MB at trial 50, {late:.1f} MB at {TRIALS}; open files "
          f"{min(files[40:])} to {max(files[40:])}; milliseconds a trial, median of each 50: "
          f"{[round(1000 * statistics.median(gaps[i : i + 50])) for i in range(0, TRIALS, 50)]}, "
          f"longest {[round(1000 * max(gaps[i : i + 50])) for i in range(0, TRIALS, 50)]}")
    assert late - early < 20
    assert max(files[40:]) <= max(files[:40]) + 2
