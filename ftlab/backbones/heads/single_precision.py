"""Heads in float32 on a network of half precision, in which most of their steps would be lost."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

from ftlab.backbones.task_model import TaskModel

HALF = (torch.float16, torch.bfloat16)


def widen_head(model: TaskModel) -> None:
    """Give the modules of a new head float32 where the network has half precision, in place.

    Each casts what it reads to its own dtype, whatever that becomes later. Tensors that are tied to
    the network (a masked language model's output layer) or lie loose in it (a mask token) stay in
    the network's dtype.
    """
    uses = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    modules = [module for _, module in model.head.named_modules()
               if any(True for _ in module.parameters(recurse=False))]
    own = {module: list(module.parameters(recurse=False)) for module in modules}
    if not any(p.dtype in HALF for tensors in own.values() for p in tensors):
        return
    for module, tensors in own.items():
        if all(uses[id(p)] == 1 for p in tensors):
            for tensor in (*tensors, *module.buffers(recurse=False)):
                if tensor.dtype in HALF:
                    tensor.data = tensor.data.float()
        module.register_forward_pre_hook(_cast)


def half_of(model: TaskModel) -> str:
    """Name the half precision that a network has; empty for none."""
    dtype = next(p.dtype for p in model.network.parameters() if p.is_floating_point())
    return str(dtype).removeprefix("torch.") if dtype in HALF else ""


def narrow_head(model: TaskModel) -> str:
    """Round a widened head to its network's dtype, in which other libraries load it.

    Returns:
        Name of the dtype; empty where the head has it already.
    """
    name = half_of(model)
    wide = [p for p in model.head.parameters() if p.dtype == torch.float32]
    if not name or not wide:
        return ""
    for tensor in wide:
        tensor.data = tensor.data.to(getattr(torch, name))
    return name


def _cast(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    dtype = next(module.parameters(recurse=False)).dtype
    return tuple(value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
                 for value in given)
