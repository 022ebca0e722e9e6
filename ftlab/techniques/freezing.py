"""What trains and what is frozen, for techniques: the head alone, norms, groups by weight decay."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from ftlab.backbones.task_model import TaskModel
from ftlab.errors import Incompatible


def decayed(
    named: Iterable[tuple[str, nn.Parameter]], lr: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Trainable parameters in two groups: matrices with weight decay, vectors without."""
    trainable = [parameter for _, parameter in named if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "lr": lr, "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "lr": lr, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def matrices_apart(groups: list[dict[str, Any]], model: TaskModel) -> list[dict[str, Any]]:
    """Groups with the matrices of linear layers in the blocks apart, which say `hidden`."""
    hidden = {id(module.weight) for block in model.blocks for _, module in block.named_modules()
              if isinstance(module, nn.Linear | Conv1D)}
    parts = [{**group, "params": [p for p in group["params"] if (id(p) in hidden) == inside],
              "hidden": inside} for group in groups for inside in (True, False)]
    return [part for part in parts if part["params"]]


def freeze_all_but_head(model: TaskModel) -> None:
    """The start of every technique that keeps the backbone."""
    model.requires_grad_(False)
    model.head.requires_grad_(True)


def hold_frozen(model: TaskModel) -> None:
    """Put what is frozen into eval mode: blocks in which nothing trains, norms that are frozen."""
    training = [name for name, p in model.named_parameters() if p.requires_grad]
    for block in (*model.blocks, model.head):
        if not any(map(block.holds, training)):
            block.train(False)
    for module in model.modules():
        if is_norm(module) and not trains_directly(module):
            module.eval()


def require_new_head(model: TaskModel, technique: str) -> None:
    """Refuse a technique that trains a head where the task adds none.

    Raises:
        Incompatible: the model keeps its pre-trained output layer.
    """
    if not any(True for _ in model.head.parameters()):
        raise Incompatible(
            f"{technique} trains a new head, and this task keeps the pre-trained output layer",
            "leave it out, or take PartialFineTuning",
        )


class Attached(nn.Module):
    """A module that a technique puts into a layer, which remains what it was: a norm, say."""


def is_norm(module: nn.Module) -> bool:
    """Return whether a module normalises (batch, layer, group, RMS, the architectures' own).

    A norm may hold an activation (timm's BatchNormAct2d), and no other layer.
    """
    held = (parameter for child in module.children() if not isinstance(child, Attached)
            for parameter in child.parameters())
    return "norm" in type(module).__name__.lower() and not any(True for _ in held)


def trains_directly(module: nn.Module) -> bool:
    """Return whether a module's own parameters train; true where it has none."""
    parameters = list(module.parameters(recurse=False))
    return not parameters or any(parameter.requires_grad for parameter in parameters)
