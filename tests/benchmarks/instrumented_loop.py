"""What four metrics a step into MLflow cost a tiny head, and what a kill loses of them.

    python tests/benchmarks/instrumented_loop.py [--json]

A head of 768 -> 10 on batches of 64. The reference is a plain loop with a fused AdamW and no
logging. Ours is the loop of cached heads with `log_every: 1`: each step's metrics go to the run's
file, from which another process writes them to MLflow (SQLite), as a study's coordinator does. Then
a process that trains is killed, and the file must have all but the last seconds.
"""

import argparse
import json
import multiprocessing
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from ftlab.data.sampling import Natural, TrainSampler
from ftlab.studies.engine import EVENTS
from ftlab.studies.run_process import journal
from ftlab.tasks.classification import Classification
from ftlab.techniques.base import Optimization
from ftlab.tracking.records import CellKey
from ftlab.tracking.tracker import Tracker
from ftlab.training.callbacks import BestEpoch
from ftlab.training.guards import TensorGuard
from ftlab.training.shortcuts.linear_heads.cached_head import CachedHead
from ftlab.training.shortcuts.linear_heads.head_members import SeedGroup, StackedRun
from ftlab.training.shortcuts.linear_heads.stacked_heads import StackedFit
from ftlab.training.trainer_settings import TrainerSettings

WIDTH, CLASSES, BATCH, EXAMPLES, EPOCHS = 768, 10, 64, 64 * 500, 4
LIMIT = 1.15
OLDEST = 5.0  # seconds of metrics that a kill may cost
OPTIM = Optimization(weight_decay=0.01)


def examples() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(EXAMPLES, WIDTH, generator=draw)
    return features, (features @ torch.randn(WIDTH, CLASSES, generator=draw)).argmax(dim=1)


def order() -> DataLoader[Any]:
    sampler = TrainSampler(Natural(), [0] * EXAMPLES, seed=0)
    return DataLoader(range(EXAMPLES), BATCH, sampler=sampler)  # type: ignore[arg-type]  # only drawn from


def raw(features: torch.Tensor, target: torch.Tensor) -> tuple[float, torch.Tensor]:
    """Seconds, and the weight."""
    linear, loader = nn.Linear(WIDTH, CLASSES), order()
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    optimizer = torch.optim.AdamW(
        [{"params": [linear.weight]}, {"params": [linear.bias], "weight_decay": 0.0}],
        lr=1e-3, weight_decay=OPTIM.weight_decay, fused=True)
    total = EPOCHS * len(loader)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, [lambda step: OPTIM.factor(step, total)] * 2)
    begin = time.perf_counter()
    for epoch in range(EPOCHS):
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]  # ours has it
        for index in torch.tensor(list(loader.sampler)).split(BATCH):
            loss = nn.functional.cross_entropy(linear(features[index]), target[index])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(linear.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return time.perf_counter() - begin, linear.weight.detach()


def ours(features: torch.Tensor, target: torch.Tensor, report: Callable[[Any], None],
         epochs: int = EPOCHS) -> tuple[float, torch.Tensor]:
    """Likewise, with metrics."""
    task, linear = Classification(), nn.Linear(WIDTH, CLASSES)
    task.fit([str(i) for i in range(CLASSES)])
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    some = {"train": features, "validation": features[:BATCH]}
    head = CachedHead(linear, ["weight", "bias"], [], some,
                      {"train": target, "validation": target[:BATCH]}, torch.float32)
    data = SimpleNamespace(task=task, train_dataloader=order)
    run = SimpleNamespace(
        data=data, settings=TrainerSettings(max_epochs=epochs, log_every=1),
        technique=SimpleNamespace(lr=1e-3, optim=OPTIM, model=linear))
    guard = TensorGuard(linear)  # type: ignore[arg-type]  # only named tensors are asked for
    seed = SeedGroup(data, guard, head.parameters(), torch.get_rng_state())  # type: ignore[arg-type]  # enough of one
    best = BestEpoch("val/loss", False, None, set(), {})
    member = StackedRun(run, seed, best, report)  # type: ignore[arg-type]  # enough of one
    fit = StackedFit(head, [member])
    begin = time.perf_counter()
    fit.train()
    return time.perf_counter() - begin, member.final[0]


def coordinate(folder: Path, steps: int) -> None:
    """Write a run's file to MLflow as it grows, until it has so many steps."""
    tracker = Tracker(f"sqlite:///{folder / 'mlflow.db'}")
    tracker.open_study("loop", {})
    cell = tracker.open_cell(CellKey("loop", "none", "none", "head", "0"), {}, [0], 0)
    run_id, path, seen = tracker.open_run(cell, 0, {}), folder / EVENTS, 0
    (folder / "ready").touch()
    while not path.exists():
        time.sleep(0.01)
    with path.open(encoding="utf-8") as file:
        while seen < steps:
            if not (line := file.readline()):
                time.sleep(0.05)
                continue
            event = json.loads(line)
            if event["event"] == "metrics":
                tracker.log_metrics(run_id, event["metrics"], event["step"], event["time"])
                seen += "train/loss" in event["metrics"]
    tracker.close()
    rows = tracker._client.get_metric_history(run_id, "train/grad_norm")
    assert [row.step for row in rows] == list(range(1, steps + 1))


def measured(features: torch.Tensor, target: torch.Tensor) -> tuple[float, float, torch.Tensor]:
    """Seconds of the loop, and from its end until MLflow has all; the weight."""
    steps = EPOCHS * (EXAMPLES // BATCH)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        process = multiprocessing.get_context("spawn").Process(
            target=coordinate, args=(folder, steps))
        process.start()
        while not (folder / "ready").exists():
            time.sleep(0.05)
        seconds, weight = ours(features, target, journal(folder))
        end = time.perf_counter()
        process.join()
        assert process.exitcode == 0
        return seconds, time.perf_counter() - end, weight


def train_for_ever(folder: Path) -> None:
    torch.set_num_threads(1)
    ours(*examples(), journal(folder), epochs=10_000)


def lost() -> float:
    """Seconds of metrics that a SIGKILL costs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        process = multiprocessing.get_context("spawn").Process(target=train_for_ever, args=(folder,))
        process.start()
        while not (folder / EVENTS).exists() or not (folder / EVENTS).stat().st_size:
            time.sleep(0.1)
        time.sleep(6)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        killed = time.time()
        process.join()
        lines = (folder / EVENTS).read_text(encoding="utf-8").splitlines(keepends=True)
        events = [json.loads(line) for line in lines if line.endswith("\n")]
        return killed - max(e["time"] for e in events if e["event"] == "metrics") / 1000


def main() -> int:
    """Measure, print; 1 where a limit is broken."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one object a row")
    said = parser.parse_args()
    torch.set_num_threads(1)
    features, target = examples()
    plain, own, late = [], [], []
    for _ in range(5):
        seconds, expected = raw(features, target)
        plain.append(seconds)
        seconds, after, found = measured(features, target)
        own.append(seconds)
        late.append(after)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    gone = lost()
    a, b = statistics.median(plain), statistics.median(own)
    rows = [
        {"name": f"{EPOCHS * EXAMPLES // BATCH} steps of a 768 -> 10 head, four metrics a step",
         "reference_seconds": round(a, 3), "ours_seconds": round(b, 3), "ratio": round(b / a, 3),
         "limit": LIMIT, "goal": LIMIT},
        {"name": "from the end of the loop until MLflow has all", "reference_seconds": None,
         "ours_seconds": round(statistics.median(late), 2), "ratio": None, "limit": None,
         "goal": None},
        {"name": "metrics lost by SIGKILL, in seconds of training", "reference_seconds": None,
         "ours_seconds": round(gone, 2), "ratio": None, "limit": OLDEST, "goal": OLDEST},
    ]
    for row in rows:
        print(json.dumps(row) if said.json else
              f"{row['name']}: {row['ours_seconds']} s against {row['reference_seconds'] or '-'} "
              f"(ratio {row['ratio'] or '-'}, limit {row['limit'] or '-'})")
    if not said.json:
        print(f"spread: {min(plain):.2f}-{max(plain):.2f} s, ours {min(own):.2f}-{max(own):.2f} s")
    return int(b / a > LIMIT or gone > OLDEST)


if __name__ == "__main__":
    sys.exit(main())
