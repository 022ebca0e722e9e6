"""Where PEFT's adapters go, found by structure, for transformers and CNNs alike."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftConfig, PeftModel, inject_adapter_in_model
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.boft import layer as boft
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

from ftlab.backbones.quantization import READS_WEIGHTS, is_quantized
from ftlab.backbones.task_model import TaskModel
from ftlab.errors import Incompatible
from ftlab.techniques.peft_methods import ALL_BUT_GROUPED, GROUPED, METHODS, kind_of
from ftlab.techniques.single_precision import added_dtype
from ftlab.wording import listed

LAYERS = (nn.Linear, nn.Conv2d, Conv1D)

# PEFT's files in which a convolution's weight is looked at as a matrix, so that it must lie as one;
# LoRA's do that for DoRA alone.
READS_FLAT = {f"peft.tuners.{name}.layer" for name in ("hra", "boft", "oft")}


def adaptable_layers(
    model: TaskModel, last: int | None = None, grouped: bool = False
) -> dict[str, nn.Module]:
    """Linear and convolution layers of the last blocks, by path from `model.network`.

    Grouped (depthwise) convolutions are there if they are asked for: PEFT can merge few methods
    into them. An output layer tied to the embedding is left out: merging into it would change what the network reads. So are
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
        and (grouped or getattr(module, "groups", 1) == 1)
        and uses[id(module.weight)] == 1
        and (not isinstance(module, nn.Conv2d) or type(module).forward is nn.Conv2d.forward)
        and not any(f"{name}.".startswith(owner) for owner in held)
    }


def choose_targets(
    model: TaskModel, technique: str, defaults: Mapping[str, Sequence[str]],
    targets: list[str] | None, last: int | None = None,
    kinds: Collection[str] = ALL_BUT_GROUPED,
) -> list[str]:
    """Paths from `model.network` of the layers to adapt.

    Args:
        model: the model before adaptation.
        technique: for messages.
        defaults: PEFT's own choice by architecture (`config.model_type`).
        targets: endings of layer names chosen by the user; `["all"]` for every layer; None for
            PEFT's choice, which is every layer where it has none.
        last: so many blocks, counted from the output, are looked at alone; None for all.
        kinds: of layers that the technique is right on; others are passed over, unless `targets`
            name them.

    Raises:
        Incompatible: nothing matches, or `targets` name layers of another kind.
    """
    every = adaptable_layers(model, last, grouped=GROUPED in kinds)
    named = targets is not None and targets != ["all"]
    layers = {path: layer for path, layer in every.items() if named or kind_of(layer) in kinds}
    if every and not layers:
        raise _unfit(technique, kinds, every.values())
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
    if unfit := [layers[path] for path in chosen if kind_of(layers[path]) not in kinds]:
        raise _unfit(technique, kinds, unfit)
    return chosen


def _unfit(technique: str, kinds: Collection[str], layers: Iterable[nn.Module]) -> Incompatible:
    there = {kind_of(layer) for layer in layers}
    able = sorted(name for name, known in METHODS.items() if there <= {*known.kinds})
    return Incompatible(
        f"{technique} is right on {listed(sorted(kinds))}, and not on {listed(sorted(there))}",
        f"name other targets, or take a method for these: {', '.join(able)}")


def _ends(path: str, endings: Sequence[str]) -> bool:
    return any(path == ending or path.endswith("." + ending) for ending in endings)


def exactly(paths: Sequence[str]) -> str:
    """A pattern that PEFT matches with these paths alone (its lists match suffixes)."""
    return "|".join(re.escape(path) for path in paths)


def inject(model: TaskModel, config: PeftConfig) -> None:
    """Put PEFT layers into the network in place; they, in float32, and the head train, nothing else."""
    on_meta = next(model.parameters()).is_meta
    with _corrected():
        inject_adapter_in_model(config, model.network, low_cpu_mem_usage=on_meta)
    for layer in model.modules():
        if isinstance(layer, BaseTunerLayer):
            _widen(layer)
    model.head.requires_grad_(True)


def attach(
    model: TaskModel, config: PeftConfig, paths: Collection[str], technique: str
) -> None:
    """Put a method's layers at some paths; they, in float32, and the head train, nothing else.

    A method whose layers share tensors is wrapped around the network, as PEFT wants it; others go
    into it in place.

    Raises:
        Incompatible: PEFT refuses, or has put layers elsewhere or nowhere, without a word.
    """
    tuner = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type]  # type: ignore[index]  # is never None
    network: Any = model.network
    on_meta = next(model.parameters()).is_meta
    if on_meta and hasattr(config, "mask_fn"):  # the places that it draws cannot be counted there
        config.mask_fn = None
    try:
        if tuner.uses_shared_state:
            with _corrected():
                wrapped = PeftModel(network, config, low_cpu_mem_usage=on_meta)
            model.requires_grad_(False)
            for name, parameter in wrapped.named_parameters():
                parameter.requires_grad_(tuner.prefix in name)
            model.wrap(wrapped, inner="base_model.model")
        else:
            inject(model, config)
    except (ValueError, TypeError, KeyError, RuntimeError, NotImplementedError) as error:
        raise Incompatible(f"{technique}: PEFT cannot adapt these layers: {error}",
                           "change the settings or the targets") from error
    model.head.requires_grad_(True)
    made = [m for m in model.modules() if isinstance(m, BaseTunerLayer)]
    if len(made) != len(paths):
        raise Incompatible(f"{technique}: PEFT has adapted {len(made)} of {len(paths)} layers, and "
                           "says nothing", "change the settings or the targets")
    for layer in made:
        _widen(layer)
        _mend(layer)
    for name in ("init_lora_weights", "init_weights"):  # whoever loads it starts nothing anew
        if isinstance(getattr(config, name, None), str):
            setattr(config, name, True)


def _widen(layer: Any) -> None:
    """Give what trains of a layer float32 where the network has half precision.

    PEFT does so too (`autocast_adapter_dtype`), except where it puts layers into a network in place.
    """
    for module in layer.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.requires_grad and parameter.dtype != added_dtype(parameter):
                setattr(module, name, nn.Parameter(parameter.data.float()))


def _mend(layer: Any) -> None:
    """Let a layer compute without warnings, on kernels that lie as it reads them."""
    if hasattr(layer, "ranknum"):  # without weights PEFT would have it trained
        layer.ranknum.requires_grad_(False)
    if hasattr(layer, "shira_indices"):  # sparse matrices: torch warns until it is told either way
        torch.sparse.check_sparse_tensor_invariants.disable()
    if type(layer).__module__ in READS_FLAT or getattr(layer, "lora_magnitude_vector", None):
        convolutions: list[Any] = [m for m in layer.modules() if isinstance(m, nn.Conv2d)]
        for module in convolutions:
            module.weight.data = module.weight.data.contiguous()
            module.keeps_layout = True


@contextmanager
def _corrected() -> Iterator[None]:
    """PEFT without a compiler, for which its BOFT looks at every layer, and without its warnings."""
    compiled = boft.get_fbd_cuda
    boft.get_fbd_cuda = lambda: None
    try:
        with warnings.catch_warnings():
            # Conv1D stores its weight transposed; PEFT corrects the setting and says so.
            warnings.filterwarnings("ignore", message="fan_in_fan_out")
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")
            yield
    finally:
        boft.get_fbd_cuda = compiled


def merge_injected(model: nn.Module) -> bool:
    """Fold every injected PEFT layer into the weights it adapts, unless these are quantised.

    Quantised again, they would lose much of what was added: a third of it was seen with nf4.
    """
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    if any(is_quantized(layer.get_base_layer()) for layer in layers):
        return False
    for layer in layers:
        layer.merge()
    return bool(layers)
