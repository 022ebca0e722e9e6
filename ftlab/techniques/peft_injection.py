"""Where PEFT's adapters go, found by structure, for transformers and CNNs alike."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence

from peft import PeftConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

from ftlab.backbones.task_model import TaskModel
from ftlab.errors import Incompatible

LAYERS = (nn.Linear, nn.Conv2d, Conv1D)

# These read the weights of their layers and never call them, so an adapter inside would do nothing.
READS_WEIGHTS = ("MultiheadAttention", "ShiftedWindowAttention", "ShiftedWindowAttentionV2",
                 "WavLMAttention")


def adaptable_layers(model: TaskModel, last: int | None = None) -> dict[str, nn.Module]:
    """Linear and ungrouped convolution layers of the last blocks, by path from `model.network`.

    Grouped (depthwise) convolutions are left out: PEFT cannot merge into them. So is an output
    layer tied to the embedding: merging into it would change what the network reads. So are
    convolutions of the architecture's own (weights standardised, padding by the input's size).
    """
    prefix = "network."
    uses = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    held = [
        name + "."
        for name, module in model.named_modules()
        if type(module).__name__ in READS_WEIGHTS
    ]
    held += [f"{prefix}{path}." for path in model.inert]
    # timm's BEiT and Swin v2 keep these biases themselves and read the layer's weight beside them
    held += [
        name + ".qkv."
        for name, module in model.named_modules()
        if getattr(module, "q_bias", None) is not None
    ]
    return {
        name.removeprefix(prefix): module
        for block in model.blocks[-last if last else None :]
        for name, module in block.named_modules()
        if isinstance(module, LAYERS)
        and getattr(module, "groups", 1) == 1
        and uses[id(module.weight)] == 1
        and (not isinstance(module, nn.Conv2d) or type(module).forward is nn.Conv2d.forward)
        and not any(f"{name}.".startswith(owner) for owner in held)
    }


def choose_targets(
    model: TaskModel, technique: str, defaults: Mapping[str, Sequence[str]],
    targets: list[str] | None, last: int | None = None,
) -> list[str]:
    """Paths from `model.network` of the layers to adapt.

    Args:
        model: the model before adaptation.
        technique: for messages.
        defaults: PEFT's own choice by architecture (`config.model_type`).
        targets: endings of layer names chosen by the user; `["all"]` for every layer; None for
            PEFT's choice, which is every layer where it has none.
        last: so many blocks, counted from the output, are looked at alone; None for all.

    Raises:
        Incompatible: nothing matches.
    """
    layers = adaptable_layers(model, last)
    model_type = getattr(getattr(model.network, "config", None), "model_type", None)
    if targets is not None:
        endings = targets
    elif model_type is not None and any(
            _ends(path, defaults.get(model_type, ())) for path in layers):
        endings = list(defaults[model_type])
    else:
        endings = ["all"]
    chosen = [path for path in layers if endings == ["all"] or _ends(path, endings)]
    if not chosen:
        names = sorted({path.rsplit(".", 1)[-1] for path in layers})
        raise Incompatible(
            f"{technique}: no linear or convolution layer of the {f'last {last} ' if last else ''}"
            f"blocks is named {endings}",
            f"this backbone's layers end in: {', '.join(names[:20]) or 'none'}",
        )
    return chosen


def _ends(path: str, endings: Sequence[str]) -> bool:
    return any(path == ending or path.endswith("." + ending) for ending in endings)


def exactly(paths: Sequence[str]) -> str:
    """A pattern that PEFT matches with these paths alone (its lists match suffixes)."""
    return "|".join(re.escape(path) for path in paths)


def inject(model: TaskModel, config: PeftConfig) -> None:
    """Put PEFT layers into the network in place; they and the head train, nothing else."""
    on_meta = next(model.parameters()).is_meta
    with warnings.catch_warnings():
        # Conv1D stores its weight transposed; PEFT corrects the setting and says so.
        warnings.filterwarnings("ignore", message="fan_in_fan_out")
        inject_adapter_in_model(config, model.network, low_cpu_mem_usage=on_meta)
    model.head.requires_grad_(True)


def merge_injected(model: nn.Module) -> bool:
    """Fold every injected PEFT layer into the weights it adapts."""
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer.merge()
    return bool(layers)
