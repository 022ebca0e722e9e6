"""Checks, before anything trains, that what a technique adds can be folded into the weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from ftlab.backbones.task_model import TaskModel
from ftlab.errors import GuardFailed
from ftlab.techniques.base import Technique
from ftlab.training.fsdp import whole

STD = 0.3  # added to what trains: LoRA's own update starts at zero
TIMES = 8  # of a step of the weights' precision; rounding them makes half of one
LEAST = 1e-4  # what the order of sums makes in float32


def check_layers(technique: Technique, model: TaskModel, batch: Mapping[str, Any]) -> None:
    """Hold a layer of each kind, filled with random numbers, to itself merged.

    A layer's input is what it gets in the model. All is computed in float32, so that the weights,
    which are rounded to their own precision when they are merged, are all that may differ: by a
    share of the root of the sum of (weight times input) squared, as independent errors do. The
    model and torch's random numbers are left as they are.

    Args:
        technique: whose `merge` it is.
        model: adapted, in eval mode.
        batch: any.

    Raises:
        GuardFailed: a merged layer gives something else.
    """
    generator = torch.Generator().manual_seed(0)
    for name, (layer, inputs) in _kinds(model, batch).items():
        layer = whole(layer)
        for parameter in layer.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.data.add_((STD * noise).to(parameter))
        other: Any = copy.deepcopy(layer)
        if not technique.merge(nn.ModuleList([other])):
            return
        merged = other.get_base_layer().float()
        step = torch.finfo(layer.get_base_layer().weight.dtype).eps
        expected, given = layer.float()(inputs), merged(inputs)
        gap = float((given - expected).norm() / _size(merged, inputs).clamp(min=1e-12))
        if not gap <= max(TIMES * step, LEAST):
            raise GuardFailed(f"merged and unmerged outputs of {name} differ by {gap:.2g} of their "
                              "size, before training")


def _kinds(model: TaskModel, batch: Mapping[str, Any]) -> dict[str, tuple[Any, Tensor]]:
    """A layer of each type, shape and precision with its input in float32, by name."""
    chosen: dict[Any, tuple[str, Any]] = {}  # PEFT's layers are mixed into modules of their own
    for name, layer in model.named_modules():
        if isinstance(layer, BaseTunerLayer):
            base: Any = layer.get_base_layer()
            if isinstance(weight := getattr(base, "weight", None), Tensor):
                chosen[type(layer), type(base), weight.shape, weight.dtype] = (name, layer)
    if not chosen:
        return {}
    seen: dict[str, Tensor] = {}

    def keep(name: str, given: Tensor) -> None:
        seen[name] = given.float() if given.is_floating_point() else given

    hooks = [layer.register_forward_pre_hook(lambda _, given, name=name: keep(name, given[0]))
             for name, layer in chosen.values()]
    try:
        model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: (layer, seen[name]) for name, layer in chosen.values() if name in seen}


def _size(layer: Any, inputs: Tensor) -> Tensor:
    """Norm of the roots of the sums of (weight times input) squared."""
    squared = copy.deepcopy(layer)
    squared.weight.data.square_()
    if getattr(squared, "bias", None) is not None:
        squared.bias.data.zero_()
    total: Tensor = squared(inputs.square() if inputs.is_floating_point() else inputs)
    return total.sum().sqrt()
