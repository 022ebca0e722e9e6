"""Tuning the last k of 12 blocks: trials that read their frozen prefix against a plain loop.

    python tests/benchmarks/freeze_boundary.py [--json]

A random BERT of 12 blocks, 5 epochs, 8 trials. The reference is PyTorch alone: the same model and
batches, frozen blocks in eval mode and outside autograd, fused AdamW. A trial of ours is all that
a sweep's trial does (data, model, guards, Lightning, validation); the cache is built once, counted,
and opened from disk by each of the others. What the planner foresaw is compared with a trial of
ours without the cache. With a block's forward pass as 1 and its backward pass
as 2, the limit is ((12 - k) + 3k) / (3k + (12 - k) / 40).
"""

import argparse
import gc
import json
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: two threads on two cores time less evenly

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn.functional import cross_entropy

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.text import TextClassification
from ftlab.techniques.partial_fine_tuning import PartialFineTuning
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings
from ftlab.training.trial import search

LAYERS, EPOCHS, TRIALS, REPEATS = 12, 5, 8, 5
TEXTS, HELD_OUT, LENGTH, BATCH = 256, 16, 64, 16
WORDS = [f"word{i}" for i in range(500)]


def make_backbone(folder: Path) -> str:
    """A random BERT of 9.8 million parameters and its tokenizer."""
    names = ["[PAD]", "[UNK]", *WORDS]
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(names)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    torch.manual_seed(0)
    transformers.BertModel(transformers.BertConfig(
        vocab_size=len(names), hidden_size=256, num_attention_heads=4, intermediate_size=1024,
        num_hidden_layers=LAYERS, max_position_embeddings=LENGTH, pad_token_id=0),
        add_pooling_layer=False).save_pretrained(folder)
    return str(folder)


def make_corpus(path: Path, count: int) -> str:
    """Texts of equal length whose first word tells the class."""
    draw, lines = random.Random(path.stem), ["text,label"]
    for i in range(count):
        words = draw.choices(WORDS[2:], k=LENGTH)
        words[0] = WORDS[i % 2]
        lines.append(f"{' '.join(words)},{'ab'[i % 2]}")
    path.write_text("\n".join(lines) + "\n")
    return str(path)


class Bench:
    """Runs on one backbone and data set.

    Args:
        folder: for both, and for the cache.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.backbone = {"source": make_backbone(folder / "bert"), "pooling": "mean",
                         "dropout": 0.0, "head_dropout": 0.0}
        counts = {"train": TEXTS, "validation": HELD_OUT, "test": HELD_OUT}
        self.data = {name: make_corpus(folder / f"{name}.csv", n) for name, n in counts.items()}

    def run(self, last: int, lr: float, plain: bool = False) -> Run:
        """A trial."""
        directory = Path(tempfile.mkdtemp(dir=self.folder))
        record = {"backbone": self.backbone, "data": {"init_args": self.data},
                  "runs_to_come": TRIALS}
        return Run(
            HuggingFace(**self.backbone),
            TextClassification(**self.data, max_length=LENGTH, batch_size=BATCH),
            PartialFineTuning(last=last, lr=lr), TrainerSettings(max_epochs=EPOCHS), 0, "val/loss",
            directory, record, plain)

    def ours(self, run: Run) -> tuple[float, list[dict[str, Any]]]:
        """Seconds of a trial, and its events: what was cached, and what its planner foresaw."""
        events: list[dict[str, Any]] = []
        begin = time.perf_counter()
        search(run, events.append)
        seconds = time.perf_counter() - begin
        return seconds, [e for e in events if e["event"] in ("forecast", "shortcut")]

    def reference(self, run: Run) -> float:
        """Seconds of the same trial as a plain loop, model and tokenised data at hand."""
        data, technique = run.data, run.technique
        data.load()
        data.connect(run.backbone, run.seed)
        transformers.set_seed(run.seed)
        model = run.backbone.build(data.task)
        technique.bind(model, data.task).train()
        optimizer = technique.optim.build(technique.param_groups(model))
        loader = data.train_dataloader()
        total = EPOCHS * len(loader)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: technique.optim.factor(step, total))
        trainable = [p for p in model.parameters() if p.requires_grad]
        begin = time.perf_counter()
        for epoch in range(EPOCHS):
            loader.sampler.set_epoch(epoch)
            for batch in loader:
                optimizer.zero_grad()
                cross_entropy(model(batch), batch["target"]).backward()
                torch.nn.utils.clip_grad_norm_(trainable, 1.0)
                optimizer.step()
                schedule.step()
        return time.perf_counter() - begin


def check(ours: Run, reference: Run) -> None:
    """Both must have trained the same weights."""
    other = dict(reference.technique.model.named_parameters())
    for name, weight in ours.technique.model.named_parameters():
        torch.testing.assert_close(weight, other[name], rtol=1e-4, atol=2e-5, msg=name)


def measure(bench: Bench, last: int) -> dict[str, Any]:
    """One row: the median trial of each side, alternating, and the cache built once."""
    lr = 1e-4
    first = bench.run(last, lr)
    building, said = bench.ours(first)
    forecast, shortcut = said
    assert " was computed " in shortcut["text"], shortcut["text"]
    whole, _ = bench.ours(bench.run(last, lr, plain=True))
    plain, cached = [], []
    for repeat in range(REPEATS):
        a, b = bench.run(last, lr * (1 + repeat)), bench.run(last, lr * (1 + repeat))
        plain.append(bench.reference(a))
        seconds, (again,) = bench.ours(b)
        assert " was read " in again["text"], again["text"]
        cached.append(seconds)
        check(b, a)
    reference = TRIALS * statistics.median(plain)
    ours = building + (TRIALS - 1) * statistics.median(cached)
    frozen = LAYERS - last
    limit = (frozen + 3 * last) / (3 * last + frozen / (EPOCHS * TRIALS))
    # with all that a trial of ours does besides, which the planner does not count
    saved = TRIALS * whole - ours
    foreseen = forecast["plain"] - forecast["build"] - forecast["read"]
    return {
        "name": f"last {last} of {LAYERS} blocks, {EPOCHS} epochs, {TRIALS} trials",
        "reference_seconds": round(reference, 2), "ours_seconds": round(ours, 2),
        "ratio": round(reference / ours, 3), "limit": round(limit, 2), "goal": round(0.9 * limit, 2),
        "building_trial_seconds": round(building, 2),
        "reading_trial_seconds": [round(each, 2) for each in cached],
        "reference_trial_seconds": [round(each, 2) for each in plain],
        "foreseen_saving_seconds": round(foreseen, 2),
        "saving_seconds": round(saved, 2),
        "foreseen_over_saving": round(foreseen / saved, 3),
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one object a row")
    said = parser.parse_args()
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # as the server from which runs are forked
    with tempfile.TemporaryDirectory() as name:
        os.environ["FTLAB_CACHE"] = str(Path(name) / "cache")
        bench = Bench(Path(name))
        for last in (1, 2, 4):
            row = measure(bench, last)
            print(json.dumps(row) if said.json else (
                f"{row['name']}: {row['reference_seconds']:.1f} s as a plain loop, "
                f"{row['ours_seconds']:.1f} s with the cache, {row['ratio']:.2f} times as fast "
                f"(limit {row['limit']}, goal {row['goal']}); trials of "
                f"{min(row['reading_trial_seconds'])} to {max(row['reading_trial_seconds'])} s "
                f"against {min(row['reference_trial_seconds'])} to "
                f"{max(row['reference_trial_seconds'])} s; saving foreseen at "
                f"{row['foreseen_over_saving']:.2f} of the measured one"), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
