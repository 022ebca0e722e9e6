"""The tensors that a fit changes: found, copied, and replaced by others for one computation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.errors import Incompatible
from ftlab.tasks.losses.base import at_least_float32
from ftlab.techniques.freezing import is_norm, trains_directly


def parameters(model: TaskModel) -> dict[str, Tensor]:
    """The parameters that train, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def of_backbone(model: TaskModel) -> dict[str, Tensor]:
    """The parameters that train outside the new head, by name."""
    return {name: p for name, p in parameters(model).items() if not model.head.holds(name)}


def statistics(model: TaskModel) -> dict[str, Tensor]:
    """The buffers of the norms that train, by name: batch norms' means and variances."""
    norms = {path for path, module in model.named_modules()
             if is_norm(module) and trains_directly(module)}
    return {name: b for name, b in model.named_buffers() if name.rpartition(".")[0] in norms}


def averaged(model: TaskModel) -> dict[str, Tensor]:
    """The tensors that an average of models is made of: what trains, and norms' statistics."""
    return parameters(model) | {name: buffer for name, buffer in statistics(model).items()
                                if buffer.is_floating_point()}


def named(model: TaskModel, names: Iterable[str]) -> dict[str, Tensor]:
    """Parameters and buffers of some names."""
    every = dict(model.named_parameters()) | dict(model.named_buffers())
    return {name: every[name] for name in names}


def copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies that nothing changes any more."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def accumulators(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies to average in: in half precision, small shares would be lost."""
    return {name: at_least_float32(copy) for name, copy in copies(tensors).items()}


def put(model: TaskModel, values: Mapping[str, Tensor]) -> None:
    """Give parameters and buffers of a model other values, in place."""
    with torch.no_grad():
        for name, tensor in named(model, values).items():
            tensor.copy_(values[name])


def renew_statistics(model: TaskModel, data: DataModule) -> None:
    """Compute the statistics of batch norms that train anew, over the training data.

    Args:
        model: in eval mode.
        data: of the run.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)
             and m.track_running_stats and trains_directly(m)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over batches
        norm.train()
    device = next(model.parameters()).device
    for batch in data.with_streams(()).train_dataloader():
        model(move_data_to_device(batch, device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


@contextmanager
def holding(model: TaskModel, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Give a model other values within, and its own back afterwards."""
    own = copies(named(model, values))
    put(model, values)
    try:
        yield
    finally:
        put(model, own)


@contextmanager
def in_eval_mode(model: TaskModel) -> Iterator[None]:
    """Put all modules into eval mode within, and each into its own afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def computed_at(
    model: TaskModel, tensors: Mapping[str, Tensor], compute: Callable[[TaskModel], Any]
) -> Any:
    """Compute something of a model in which tensors stand in for parameters and buffers.

    The model keeps its own, and gradients flow into the tensors.

    Args:
        model: computed with the tensors.
        tensors: by the name of what they stand in for; tied parameters follow.
        compute: given the model.
    """
    stand_in = {id(tensor): tensors[name] for name, tensor in named(model, tensors).items()}
    # by object: torch.func.functional_call loses a parameter that modules share in a ParameterDict
    stores: list[dict[str, Any]] = [store for module in model.modules()
                                    for store in (module._parameters, module._buffers)]
    places = [(store, name, tensor) for store in stores for name, tensor in store.items()
              if id(tensor) in stand_in]
    try:
        for store, name, tensor in places:
            store[name] = stand_in[id(tensor)]
        return compute(model)
    finally:
        for store, name, tensor in places:
            store[name] = tensor


def require_trained_backbone(model: TaskModel, wrapper: str) -> None:
    """Refuse a wrapper that changes how a backbone trains where only the head does.

    Raises:
        Incompatible: nothing of the backbone trains.
    """
    if not of_backbone(model):
        raise Incompatible(f"{wrapper} changes how the backbone trains, and here the head alone "
                           "does", f"leave {wrapper} out, or put it around another technique")
