"""1,001 examples on one, two and three ranks: each counts once, and the metrics are the same."""

from __future__ import annotations

import os
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score

from ftlab.data.sampling import ExactEvalSampler
from ftlab.tasks.classification import Classification

COUNT, CLASSES, BATCH = 1001, 5, 32


def examples() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(COUNT, CLASSES, generator=generator)
    return logits, torch.randint(0, CLASSES, (COUNT,), generator=generator)


def measure(rank: int, world: int) -> tuple[int, dict[str, float]]:
    """This rank's examples, and the metrics of all ranks."""
    logits, targets = examples()
    task = Classification()
    task.fit([str(i) for i in range(CLASSES)])
    metrics = task.collection()
    share = list(ExactEvalSampler(list(range(COUNT)), rank, world))
    for start in range(0, len(share), BATCH):
        chosen = share[start : start + BATCH]
        metrics.update(logits[chosen], targets[chosen])
    found = {name: value.double() for name, value in metrics.compute().items()}
    return len(share), {name: float(value) for name, value in found.items() if value.numel() == 1}


def one(rank: int, world: int, meeting: str, told: Any) -> None:
    torch.distributed.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=world)
    told.put((rank, measure(rank, world)))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    told.close()
    told.join_thread()
    os._exit(0)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks__see_every_example_once_and_agree(world: int, tmp_path: Path) -> None:
    context = get_context("fork")
    told = context.Queue()
    processes = [context.Process(target=one, args=(rank, world, str(tmp_path / "meet"), told))
                 for rank in range(world)]
    for process in processes:
        process.start()
    results = [told.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(60)
    assert sum(count for _, (count, _) in results) == COUNT
    logits, targets = examples()
    chosen = logits.argmax(-1)
    right = accuracy_score(targets, chosen), f1_score(targets, chosen, average="macro")
    _, alone = measure(0, 1)
    for _, (_, found) in results:
        # quotients of whole numbers are the same on any rank; this one is a float32 sum
        calibration = found.pop("calibration_error"), alone["calibration_error"]
        assert calibration[0] == pytest.approx(calibration[1], abs=1e-6)
        expected = {name: value for name, value in alone.items() if name != "calibration_error"}
        assert found == pytest.approx(expected, abs=1e-12, rel=0)
        assert (found["accuracy"], found["f1_macro"]) == pytest.approx(right, abs=1e-6)
