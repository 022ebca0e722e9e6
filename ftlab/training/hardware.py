"""Hardware used as it is: what `auto` becomes, how convolutions lie in memory, what CUDA rounds.

Every decision follows from the machine and the network's structure alone, never from a clock:
seeds, trials and ranks on equal machines decide alike.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from ftlab.backbones.task_model import TaskModel
from ftlab.training.event_log import Report
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings

Decided = Literal["32-true", "bf16-mixed"]
MEMORY = Path("/proc/meminfo")
LIMIT, USED = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")


def device_of(settings: TrainerSettings) -> torch.device:
    """Where Lightning will train, of one process the first device."""
    wanted = settings.accelerator
    if wanted in ("auto", "gpu") and torch.cuda.is_available():
        return torch.device("cuda")
    if wanted in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def room_of(device: torch.device) -> int:
    """Bytes that are free on a device: of a GPU's memory, or of the machine's, within the container."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if MEMORY.exists():
        free = next(int(line.split()[1]) * 1024 for line in MEMORY.read_text().splitlines()
                    if line.startswith("MemAvailable:"))
    if LIMIT.exists() and USED.exists() and (limit := LIMIT.read_text().strip()).isdigit():
        free = min(free, int(limit) - int(USED.read_text()))
    return free


def bfloat16_instructions() -> str:
    """The processor's instructions for products in bfloat16: `AMX-BF16`, `AVX512-BF16`, or ``."""
    if not torch.backends.mkldnn.is_available():  # the library that uses them
        return ""
    if torch.cpu._is_amx_tile_supported():  # every processor with tiles multiplies bfloat16 in them
        return "AMX-BF16"
    return "AVX512-BF16" if torch.cpu._is_avx512_bf16_supported() else ""


def auto_precision(device: torch.device, model: nn.Module) -> tuple[Decided, str]:
    """The precision that `auto` becomes, and why.

    In bfloat16 autocast a twelve-layer encoder trains 3.2 times as fast with AVX512-BF16 alone
    (7 times the multiplications a second with AMX), a ResNet-50 2.3 times; but networks of
    depthwise convolutions and batch norms (MobileNet, MNASNet, EfficientNet), which do little
    arithmetic a byte, down to half as fast on small images.
    """
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16-mixed", "the GPU computes in bfloat16"
        return "32-true", "the GPU does not compute in bfloat16"
    if device.type != "cpu":
        return "32-true", f"bfloat16 is not tried on {device.type}"
    has = bfloat16_instructions()
    if not has:
        return "32-true", "the processor has neither AMX-BF16 nor AVX512-BF16"
    if is_depthwise(model):
        return "32-true", f"depthwise convolutions with batch norms gain nothing from {has}"
    return "bf16-mixed", f"the processor has {has}"


def is_depthwise(model: nn.Module) -> bool:
    """Return whether a network has depthwise convolutions, and batch norms after convolutions."""
    modules = list(model.modules())
    return any(isinstance(m, nn.BatchNorm2d) for m in modules) and any(
        isinstance(m, nn.Conv2d) and m.groups == m.in_channels > 1 for m in modules)


def suit(run: Run, model: TaskModel, report: Report) -> str:
    """Decide what `auto` is and how the model lies in memory, and report both.

    Returns:
        The precision, which is the settings' from now on and in the checkpoint's manifest.
    """
    texts, device = [], device_of(run.settings)
    if run.settings.precision == "auto":
        name, why = auto_precision(device, model)
        run.settings = replace(run.settings, precision=name)
        if run.record:  # without a specification there is none to add to
            run.record = {**run.record, "became": {"precision": name}}
        texts.append(f"precision auto is {name}: {why}")
    if lay_out(run, model):
        texts.append("convolutions lie channels last")
    report({"event": "precision", "text": run.settings.precision})
    if texts:
        report({"event": "hardware", "text": "; ".join(texts)})
    return run.settings.precision


def lay_out(run: Run, model: nn.Module) -> bool:
    """Store a CNN's convolutions channels last, unless --plain; returns whether it was done.

    Names, shapes and values stay; outputs change by rounding, since sums run in another order.
    On CPUs it is 1.1 to 2.4 times as fast, in training and evaluation. A network with one
    convolution cuts patches with it, and has nothing to gain. A technique's layer that reads a kernel
    as a matrix says `keeps_layout`.
    """
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)
                    and not getattr(m, "keeps_layout", False)]
    if run.plain or run.settings.strategy == "fsdp" or len(convolutions) < 2:
        return False
    if device_of(run.settings).type != "cpu":
        return False
    for layer in convolutions:
        # `contiguous` leaves kernels of one pixel or one channel as they are, and their gradients
        # would lie otherwise than they do, which costs DDP a copy
        laid_out = torch.empty_like(layer.weight.data, memory_format=torch.channels_last)
        layer.weight.data = laid_out.copy_(layer.weight.data)
    return True


def set_tf32(allowed: bool) -> None:
    """Allow CUDA to round the factors of float32 products to 10 bits, in layers of all kinds, or not.

    Torch's own default rounds those of convolutions alone.
    """
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed
