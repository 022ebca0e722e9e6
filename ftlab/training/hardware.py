"""Hardware used as it is: what `auto` becomes, how convolutions lie in memory, what CUDA rounds.

What is decided follows from the machine and the network's structure alone, never from a clock:
seeds, trials and ranks on equal machines decide alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import nn

from ftlab.backbones.task_model import TaskModel
from ftlab.training.callbacks import Report
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings

Decided = Literal["32-true", "bf16-mixed"]

REPAID = 1000
"""Steps from which compiled blocks pay. On a CPU, compiling a twelve-layer encoder costs what some
500 steps win; no GPU has been measured, hence twice as many."""


def device_of(settings: TrainerSettings) -> torch.device:
    """Where Lightning will train, of one process the first device."""
    wanted = settings.accelerator
    if wanted in ("auto", "gpu") and torch.cuda.is_available():
        return torch.device("cuda")
    if wanted in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def bfloat16_instructions() -> str:
    """The processor's own for products in bfloat16: `AMX-BF16`, `AVX512-BF16`, or none, ``."""
    if not torch.backends.mkldnn.is_available():  # the library that uses them
        return ""
    if torch.cpu._is_amx_tile_supported():  # every processor with tiles multiplies bfloat16 in them
        return "AMX-BF16"
    return "AVX512-BF16" if torch.cpu._is_avx512_bf16_supported() else ""


def auto_precision(device: torch.device, model: nn.Module) -> tuple[Decided, str]:
    """What the precision `auto` becomes, and why.

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
    """Whether a network has depthwise convolutions, and batch norms after its convolutions."""
    modules = list(model.modules())
    return any(isinstance(m, nn.BatchNorm2d) for m in modules) and any(
        isinstance(m, nn.Conv2d) and m.groups == m.in_channels > 1 for m in modules)


def suit(run: Run, model: TaskModel, report: Report) -> str:
    """Settle what `auto` is and how the model lies in memory, and say both.

    Returns:
        The precision, which is the settings' from now on and in the checkpoint's manifest.
    """
    said, device = [], device_of(run.settings)
    if run.settings.precision == "auto":
        name, why = auto_precision(device, model)
        run.settings = replace(run.settings, precision=name)
        if run.record:  # without a specification there is none to add to
            run.record = {**run.record, "became": {"precision": name}}
        said.append(f"precision auto is {name}: {why}")
    if lay_out(run, model):
        said.append("convolutions lie channels last")
    report({"event": "precision", "text": run.settings.precision})
    if said:
        report({"event": "hardware", "text": "; ".join(said)})
    return run.settings.precision


def lay_out(run: Run, model: nn.Module) -> bool:
    """Store a CNN's convolutions channels last, and say whether it is one; without --plain.

    Names, shapes and values stay; outputs change by rounding, since sums run in another order.
    On CPUs it is 1.1 to 2.4 times as fast, in training and evaluation. A network with one
    convolution cuts patches with it, and has nothing to gain.
    """
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
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


def room_for_images(device: torch.device) -> int:
    """Bytes of a device that a run may fill with its images: a sixteenth of a GPU's memory."""
    if device.type != "cuda":
        return 0
    return int(torch.cuda.get_device_properties(device).total_memory) // 16


def settle_images(run: Run, device: torch.device, report: Report) -> int:
    """Let the images that are kept reside on the device, if there is room, and say so.

    From then on batches bring their names to it, and are gathered and normalised there.

    Returns:
        Bytes that are set aside on the device.
    """
    kept = [] if run.data.unread else run.data.kept_images()  # none with --plain
    room, wanted = room_for_images(device), sum(each.bytes for each in kept)
    if not room or not wanted:
        return 0
    if wanted > room:
        report({"event": "hardware", "text": f"images stay in memory: {wanted / 1e6:,.0f} MB are "
                                             f"more than {room / 1e6:,.0f}, a sixteenth of the GPU"})
        return 0
    for each in kept:
        each.reside(device)
    report({"event": "hardware", "text": f"images reside on the device ({wanted / 1e6:,.1f} MB)"})
    return wanted


def set_tf32(allowed: bool) -> None:
    """Whether CUDA may round the factors of float32 products to 10 bits, in layers of all kinds.

    Torch's own default rounds those of convolutions alone.
    """
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed


@contextmanager
def compiled(run: Run, model: TaskModel, report: Report) -> Iterator[None]:
    """Within it the blocks that train are compiled, if that is asked for and repaid."""
    if run.settings.compile == "never":
        yield
        return
    reason = why_not_compiled(run)
    modules = [] if reason else compile_blocks(model)
    report({"event": "compile", "text": reason or f"{len(modules)} modules are compiled"})
    try:
        yield
    finally:
        for module in modules:
            module._compiled_call_impl = None


def why_not_compiled(run: Run) -> str:
    """What speaks against compiling a run's blocks, where that is asked for; empty for nothing."""
    batches, settings = len(run.data.train_dataloader()), run.settings
    steps = settings.max_epochs * math.ceil(batches / settings.accumulate)
    if run.plain:
        return "--plain"
    if device_of(run.settings).type != "cuda":
        return "only on a GPU is it repaid"
    if steps < REPAID:
        return f"{steps} steps do not repay it, {REPAID} would"
    if run.settings.strategy == "fsdp":
        return "weights are shared out"
    if run.technique.changes_freezing:
        return "what trains changes, and all would be compiled again"
    return ""


def compile_blocks(model: TaskModel, **options: Any) -> list[nn.Module]:
    """Compile the blocks in which something trains, each in place: tensors keep their names.

    Args:
        model: adapted.
        options: of `torch.compile`.

    Returns:
        The compiled modules; lists of modules, which have no forward, are left as they are.
    """
    named = dict(model.named_modules())
    paths = [path for block in model.blocks for path in block.paths
             if any(parameter.requires_grad for parameter in block.parameters())]
    modules = [named[path] for path in paths
               if path in named and not isinstance(named[path], nn.ModuleList | nn.ModuleDict)]
    for module in modules:
        module.compile(**options)
    return modules
