"""The costs of a run, measured the same way for every technique."""

from __future__ import annotations

import ctypes
import gc
import re
import resource
import statistics
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ftlab.backbones.quantization import logical_size
from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.data.batches import pick
from ftlab.data.sampling import Natural
from ftlab.tasks.base import Task
from ftlab.techniques.base import Technique
from ftlab.training.precision import Context

OF_TRAINING = ("cost/train_seconds", "cost/peak_memory_bytes", "cost/step_seconds",
               "cost/prefix_seconds")
"""The costs of a fit: 0 for a technique without one."""

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
MAPS = Path("/proc/self/smaps")
_MAPPING = re.compile(r"[0-9a-f]+-[0-9a-f]+ ")


class MemoryMeter:
    """Peak memory of a phase, above what was in use when the meter was made.

    On a GPU: the allocator's peak. On a CPU: the process's largest resident set, which Linux
    can reset between phases; elsewhere the peak of the whole process so far.

    Args:
        device: where the model runs.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cpu":  # the libraries' buffers are the process's, and not of its first run
            torch.ones(512, 512) @ torch.ones(512, 512)
        _release()
        self.base = 0 if device.type == "cuda" else _resident("VmRSS")
        self.shared = _shared()

    def start(self) -> None:
        """Forget the peak so far."""
        _release()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif CLEAR_REFS.exists():
            CLEAR_REFS.write_text("5")  # proc(5): resets VmHWM

    def peak(self) -> int:
        """Bytes at the highest point since `start`."""
        if self.device.type == "cuda":
            return max(0, int(torch.cuda.max_memory_allocated(self.device)) - self.base)
        return max(0, _resident("VmHWM") - self.base - (_shared() - self.shared))


def held_by_process(device: torch.device) -> int:
    """Bytes that this process holds for itself on a CPU, mapped files aside; 0 where the device is another."""
    if device.type != "cpu" or not STATUS.exists():
        return 0
    _release()
    return _resident("RssAnon")


def joules(device: torch.device) -> float | None:
    """Energy that a GPU has used since its driver was loaded, by all processes; None where none is reported.

    NVIDIA's own counter (NVML), which Volta and newer have; `pip install nvidia-ml-py` reads it.
    """
    if device.type != "cuda":
        return None
    try:
        import pynvml

        handle = torch.cuda._get_pynvml_handler(device)
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
    except (ImportError, RuntimeError):
        return None
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "pynvml":  # NVMLError: a device or driver without it
            raise
        return None


def _shared() -> int:
    """Bytes that are no technique's need: images that loader processes keep, and the libraries' code."""
    return _resident("RssShmem") + _code() if STATUS.exists() else 0


def _code() -> int:
    """Resident bytes of shared libraries, which come into memory as they are first used."""
    total, of_library = 0, False
    for line in MAPS.read_text().splitlines():
        if line.startswith("Rss:"):
            total += of_library * int(line.split()[1]) * 1024
        elif _MAPPING.match(line):
            of_library = ".so" in line
    return total


def _release() -> None:
    """Give freed memory back, which the C library would otherwise keep resident."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc alone has it
        if trim is not None:
            trim(0)


def _resident(field: str) -> int:
    if STATUS.exists():
        for line in STATUS.read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def parameter_counts(model: TaskModel, trained: set[str]) -> dict[str, float]:
    """Parameters that trained and parameters in all, without buffers."""
    sizes = {name: logical_size(parameter) for name, parameter in model.named_parameters()}
    return {
        "cost/trainable_parameters": sum(sizes[name] for name in trained),
        "cost/total_parameters": sum(sizes.values()),
    }


def flops(
    technique: Technique, batch: Mapping[str, Any], context: Context = nullcontext
) -> dict[str, float]:
    """Floating-point operations an example, of a training step and of a forward pass.

    Counted by `torch.utils.flop_counter` (operations it does not know count nothing) over one
    typical training batch, padding included, in the `context` of the run's precision.
    """
    batch, examples = uncached(batch), len(batch["index"])
    technique.eval()
    with sdpa_kernel(SDPBackend.MATH):  # fused attention on CPUs is unknown to the counter
        with FlopCounterMode(display=False) as counter, torch.no_grad(), context():
            technique.model(batch if technique.model.needs_target else without_target(batch))
        inference = counter.get_total_flops()
        if not technique.trains:
            return {"cost/train_flops": 0.0, "cost/inference_flops": inference / examples}
        with FlopCounterMode(display=False) as counter:
            with context():
                loss = technique.objective(technique.model, technique.task, batch)
            loss.backward()
    technique.zero_grad(set_to_none=True)
    return {
        "cost/train_flops": counter.get_total_flops() / examples,
        "cost/inference_flops": inference / examples,
    }


def typical_batch(data: DataModule) -> dict[str, Any]:
    """The training batch of the first epoch whose padding is closest to the mean.

    Batches of like length differ in length from each other, so that the first is not typical.
    """
    if data.sampling.varies:  # the size that all have on average
        data = data.sampled_by(Natural())
    loader, lengths = data.train_dataloader(), data.padded_lengths()
    if lengths is None:
        batch: dict[str, Any] = next(iter(loader))
        return batch
    batches: list[list[int]] = list(loader.batch_sampler or ())
    widths = [max(lengths[i] for i in batch) for batch in batches]
    mean = (sum(width * len(rows) for width, rows in zip(widths, batches, strict=True))
            / sum(map(len, batches)))
    whole = [number for number, rows in enumerate(batches) if len(rows) >= len(batches[0])]
    chosen = batches[min(whole, key=lambda number: abs(widths[number] - mean))]
    return loader.made(chosen)


def latency(task: Task, model: TaskModel, batch: Mapping[str, Any],
            context: Context = nullcontext, repeats: int = 10) -> float:
    """Median seconds of a prediction in eval mode, generated where the task generates.

    Args:
        task: predicts.
        model: in any mode; it is put into eval mode.
        batch: to predict, without target.
        context: of the run's precision.
        repeats: predictions measured, after two that warm the caches.
    """
    model.eval()
    seconds = []
    with torch.inference_mode():
        for _ in range(repeats + 2):
            start = time.perf_counter()
            with context():
                task.predict(model, batch)
            if next(model.parameters()).is_cuda:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])


def first_examples(batch: Mapping[str, Any], count: int) -> dict[str, Any]:
    """The first examples of a batch, at most `count`."""
    return pick(batch, range(min(count, len(batch["index"]))))


def without_target(batch: Mapping[str, Any]) -> dict[str, Any]:
    """A batch as a user of the model has it."""
    return {name: value for name, value in uncached(batch).items() if name != "target"}


def uncached(batch: Mapping[str, Any]) -> dict[str, Any]:
    """A batch of which all is computed anew, as costs are measured."""
    return {name: value for name, value in batch.items() if name != "prefix"}
