"""The check of a GPU in one command: every `pytest -m gpu`, and what its ways of computing cost.

    python tests/benchmarks/gpu.py [--json] [--device cuda]

Without a GPU it says so and ends with 0; `--device cpu` shows on a CPU, with a smaller network, that
the program itself works, and runs the same checks there. Rows: a training step of a BERT in every
precision and compiled, and its prediction with int8 and int4 weights, against plain float32; each is
the best of three medians, with the peak of its memory. What a device has not is left out with the reason.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from torch import nn

from ftlab.training import quantized
from ftlab.training.costs import MemoryMeter
from ftlab.training.precision import context_of
from ftlab.training.shortcuts.compiled_blocks import compiled

CHECKS = Path(__file__).parents[1] / "gpu"
SECONDS = 480
"""The checks take less, or have failed."""
SIZES = {"cuda": (768, 12, 64, 128), "cpu": (64, 2, 8, 32)}
"""Width, blocks, examples and tokens of a batch."""
STEPS, REPEATS = 10, 3


def network(device: str) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """A random BERT, and a batch."""
    width, blocks, examples, tokens = SIZES[device]
    torch.manual_seed(0)
    config = hf.BertConfig(hidden_size=width, num_hidden_layers=blocks, num_attention_heads=width // 64 or 1,
                           intermediate_size=4 * width)
    model = hf.BertForSequenceClassification(config).to(device)
    ids = torch.randint(5, 30_000, (examples, tokens), device=device)
    return model, {"input_ids": ids, "labels": torch.arange(examples, device=device) % 2}


def timed(work: Callable[[], Any], device: str) -> tuple[float, float]:
    """Seconds of a call, the best of the medians, and MiB at its peak."""
    meter = MemoryMeter(torch.device(device))
    work()
    work()
    meter.start()
    medians = []
    for _ in range(REPEATS):
        seconds = []
        for _ in range(STEPS):
            begin = time.perf_counter()
            work()
            if device == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - begin)
        medians.append(statistics.median(seconds))
    return min(medians), meter.peak() / 2**20


def step(device: str, precision: str, compile_blocks: bool) -> tuple[float, float]:
    """A training step."""
    model, batch = network(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    scaler = torch.amp.GradScaler(device, enabled=precision == "16-mixed")
    context = context_of(precision, torch.device(device))

    def work() -> None:
        with context():
            loss = model(**batch).loss
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    layers = list(model.bert.encoder.layer) if compile_blocks else []
    with compiled(layers) if layers else contextlib.nullcontext():
        return timed(work, device)


def prediction(device: str, name: str) -> tuple[float, float]:
    """A prediction, with weights as integers where there is a name."""
    model, batch = network(device)
    model.eval().requires_grad_(False)
    layers = [layer for layer in model.bert.encoder.modules() if isinstance(layer, nn.Linear)]
    with quantized.held_as(layers, name) if name else contextlib.nullcontext(), torch.inference_mode():
        return timed(lambda: model(**batch), device)


def rows(device: str) -> Iterator[dict[str, Any]]:
    """Each way beside plain float32."""
    kinds: list[tuple[str, Callable[[], tuple[float, float]], str]] = [
        ("step, 32-true", lambda: step(device, "32-true", False), ""),
        ("step, bf16-mixed", lambda: step(device, "bf16-mixed", False), ""),
        ("step, 16-mixed", lambda: step(device, "16-mixed", False),
         "" if device == "cuda" else "a CPU has no float16 autocast"),
        ("step, bf16-mixed, compiled", lambda: step(device, "bf16-mixed", True),
         "" if device == "cuda" else "only on a GPU is it repaid"),
        ("prediction, float32", lambda: prediction(device, ""), ""),
        *((f"prediction, {name}", lambda name=name: prediction(device, name), "") for name in ("int8", "int4"))]
    reference: dict[str, float] = {}
    for title, measure, absent in kinds:
        kind = title.partition(",")[0]
        if absent:
            yield {"name": title, "left_out": absent}
            continue
        seconds, mebibytes = measure()
        reference.setdefault(kind, seconds)
        yield {"name": title, "reference_seconds": reference[kind], "ours_seconds": seconds,
               "ratio": round(seconds / reference[kind], 3), "limit": None, "goal": None,
               "peak_mib": round(mebibytes, 1)}


def main() -> int:
    """Check, measure and print; 1 where a check fails."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one object a row")
    parser.add_argument("--device", choices=list(SIZES), default="cuda")
    said = parser.parse_args()
    if said.device == "cuda" and not torch.cuda.is_available():
        print("there is no GPU that torch can use: nothing was checked (--device cpu tries the program)")
        return 0
    begin = time.perf_counter()
    marks = ["-m", "gpu" if said.device == "cuda" else "slow"]
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", *marks, str(CHECKS)], check=False, timeout=SECONDS,
                          stdout=sys.stderr)
    for row in rows(said.device):
        print(json.dumps(row) if said.json else f"{row['name']}: left out, {row['left_out']}" if "left_out" in row
              else f"{row['name']}: {1e3 * row['ours_seconds']:.2f} ms, {row['ratio']:.2f} of float32's, "
              f"{row['peak_mib']:.0f} MiB", flush=True)
    print(f"{'passed' if not done.returncode else 'FAILED'} in {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    return int(bool(done.returncode))


if __name__ == "__main__":
    sys.exit(main())
