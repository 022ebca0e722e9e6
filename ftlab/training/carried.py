"""Weights that go from one fit to the next on the same network, whatever task stands on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ftlab.backbones.block import lies_below
from ftlab.backbones.task_model import TaskModel
from ftlab.errors import Incompatible

HEAD = "head/"
"""Begins the place of a tensor of the head."""
Slot = tuple[int, str]
"""A module, by identity, and the name of a tensor in it: it stays when modules are put around it."""


@dataclass(frozen=True)
class Learned:
    """Tensors that stages have changed.

    Attributes:
        tensors: by their `places`, on the CPU.
        seconds: that the stages' fits took, when they were trained.
    """

    tensors: Mapping[str, Tensor]
    seconds: float


def carries_head(learned: Learned | None) -> bool:
    """Return whether stages have trained a head that goes on."""
    return learned is not None and any(place.startswith(HEAD) for place in learned.tensors)


def check_new_tokens(model: TaskModel) -> None:
    """Refuse a stage of a network with new tokens.

    Raises:
        Incompatible: their embeddings train beside a frozen table, and would be left behind.
    """
    if model.new_ids:
        raise Incompatible("a stage leaves the embeddings of new_tokens behind",
                           "leave out new_tokens, or the stage")


def places(model: TaskModel) -> dict[str, str]:
    """Names of the parameters and persistent buffers, by a place that other tasks' models share.

    It is the number of the block, of the part of the block, and the path in there, since a network
    has the same blocks whatever stands on them. Tied tensors have the first of their names.
    """
    first = {id(tensor): name for name, tensor in
             reversed(model.state_dict(keep_vars=True).items())}
    names = list(first.values())
    blocks = [*enumerate(model.blocks), (HEAD.rstrip("/"), model.head)]
    return {f"{prefix}/{number}{name[len(path):]}": name
            for prefix, block in blocks for number, path in enumerate(block.paths)
            for name in names if block.holds(name) and lies_below(name, [path])}


def slots(model: TaskModel) -> dict[str, Slot]:
    """The slot of each parameter and persistent buffer, by name; tied ones under one name."""
    kept = model.state_dict(keep_vars=True).keys()
    return {name: (id(module), attribute)
            for path, module in model.named_modules()
            for attribute in (*module._parameters, *module._buffers)
            if (name := f"{path}.{attribute}" if path else attribute) in kept}


def lay(model: TaskModel, learned: Learned) -> set[Slot]:
    """Put what stages have learned into a model that is not adapted yet.

    The output layer of a stage's task, which stands in its last block where the network brings one
    itself, is left behind where the model has another.

    Returns:
        The slots that were filled.

    Raises:
        Incompatible: it is another network.
    """
    names, state, filled = places(model), model.state_dict(keep_vars=True), slots(model)
    kept = {place: tensor for place, tensor in learned.tensors.items()
            if place in names or not is_output(place, model)}
    for place, tensor in kept.items():
        there = state.get(names.get(place, ""))
        if there is None or there.shape != tensor.shape:
            raise Incompatible(
                f"a stage has trained {place}, of shape {list(tensor.shape)}, and the network that "
                "follows has no such tensor",
                "let the stage carry: backbone, or give it the data and task of what follows")
        with torch.no_grad():
            there.copy_(tensor)
    return {filled[names[place]] for place in kept}


def is_output(place: str, model: TaskModel) -> bool:
    """Return whether a place is in the last block, where an output layer may stand."""
    return place.startswith(f"{len(model.blocks) - 1}/")


def names_of(model: TaskModel, filled: set[Slot]) -> set[str]:
    """Names that the tensors of some slots have by now."""
    return {name for name, slot in slots(model).items() if slot in filled}


def tensors_of(model: TaskModel) -> Iterator[tuple[Slot, str, Tensor]]:
    """Slot, place and tensor of each parameter and persistent buffer."""
    state, filled = model.state_dict(keep_vars=True), slots(model)
    return ((filled[name], place, state[name]) for place, name in places(model).items())
