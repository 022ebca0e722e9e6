"""Parameters that a backbone carries and the task never uses (an encoder's pooler, say)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ftlab.backbones.passes import tensors
from ftlab.backbones.task_model import TaskModel


def retire_unused(model: TaskModel, batch: Mapping[str, Any]) -> list[str]:
    """Turn parameters that the outputs do not depend on into buffers.

    No technique can train them, so they would only inflate its count and fail the guards.

    Args:
        model: the model before a technique adapts it, in eval mode.
        batch: a small batch.

    Returns:
        The names of the retired parameters.
    """
    unused = unreached_parameters(model, batch)
    for module in list(model.modules()):
        parameters = module.named_parameters(recurse=False, remove_duplicate=False)
        for name, parameter in list(parameters):
            if parameter in unused:
                delattr(module, name)
                module.register_buffer(name, parameter.detach())
    return sorted(unused.values())


def unreached_parameters(model: TaskModel, batch: Mapping[str, Any]) -> dict[nn.Parameter, str]:
    """The parameters that the outputs do not depend on, with their names.

    It walks the autograd graph of one forward pass and computes no gradient. Trainable flags
    are put back as they were.
    """
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()
             if parameter.is_floating_point()}  # quantised ones have no place in the graph
    for parameter in flags:
        parameter.requires_grad_(True)
    with torch.enable_grad():
        outputs = model(batch)
    reached: set[nn.Parameter] = set()
    seen: set[Any] = set()
    waiting: list[Any] = [tensor.grad_fn for tensor in tensors(outputs)]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if isinstance(variable, nn.Parameter):
            reached.add(variable)
        waiting.extend(parent for parent, _ in node.next_functions)
    for parameter, flag in flags.items():
        parameter.requires_grad_(flag)
    return {parameter: name for name, parameter in model.named_parameters()
            if parameter in flags and parameter not in reached}
