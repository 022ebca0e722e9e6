"""Fully sharded data parallelism (FSDP), for models whose training does not fit one device.

Zhao, Gu, Varma et al. (2023), https://arxiv.org/abs/2304.11277; here PyTorch's second version,
which keeps each parameter by itself and under its name.

Weights, gradients and the optimizer's state are shared out over the ranks; the frozen weights
too. Where that is possible the model has no weights until it is shared out (`in_shares.py`); otherwise
each rank builds it whole before. The first rank evaluates it whole after the fit, as after every fit.
"""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_map

from ftlab.backbones.new_tokens import is_delta
from ftlab.backbones.quantization import quantized_layers
from ftlab.backbones.task_model import TaskModel
from ftlab.errors import InputError
from ftlab.techniques.base import Technique


def strategy(devices: int) -> ModelParallelStrategy:
    """Lightning's, whose hook `configure_model` shards."""
    return ModelParallelStrategy(devices, 1, save_distributed_checkpoint=False)


WHOLE = {"begin_fit", "objective", "after_step", "evaluated", "settle"}
"""Methods of techniques that are given whole weights."""


def check(model: TaskModel, technique: Technique) -> None:
    """Refuse what cannot be sharded and stay right.

    Args:
        model: adapted, in training mode.
        technique: that adapted it.

    Raises:
        InputError: batch statistics, new tokens, quantised weights, several dtypes that train in one
            unit, or a technique that keeps weights.
    """
    if technique.hooks & WHOLE:
        raise InputError(f"strategy fsdp shares out the weights, and {type(technique).__name__} "
                         "works on whole ones", "set trainer: {strategy: ddp}")
    if any(isinstance(m, _BatchNorm) and m.training and m.track_running_stats
           for m in model.modules()):
        raise InputError("strategy fsdp: batch normalisation would keep statistics of its own on "
                         "each device", "set trainer: {strategy: ddp}")
    if any(is_delta(name) for name, _ in model.named_parameters()):
        raise InputError("strategy fsdp does not share out embeddings of new_tokens that train "
                         "beside a frozen table", "set trainer: {strategy: ddp}")
    if quantized_layers(model):
        raise InputError("strategy fsdp does not share out the weights of a quantised base",
                         "set trainer: {strategy: ddp}, or leave quantize out")
    units = _units(model)
    rest = {id(p) for p in model.parameters()} - {id(p) for unit in units for p in unit.parameters()}
    for group in ([p for p in model.parameters() if id(p) in rest], *map(_parameters, units)):
        dtypes = sorted({str(p.dtype).removeprefix("torch.") for p in group if p.requires_grad})
        if len(dtypes) > 1:
            raise InputError(f"strategy fsdp reduces gradients of one dtype at a time, and in one unit "
                             f"{' and '.join(dtypes)} train together",
                             "give the backbone dtype: float32, or set trainer: {precision: bf16-true}")


def _parameters(module: nn.Module) -> list[nn.Parameter]:
    return list(module.parameters())


def _units(model: TaskModel) -> list[nn.Module]:
    """Modules that are each gathered as a whole; what lies in none goes with the root."""
    uses = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    modules, units = dict(model.named_modules()), list[nn.Module]()
    for path in [path for block in model.blocks for path in block.paths]:
        module = modules.get(path)  # None: a loose parameter
        if module is None or isinstance(module, nn.ModuleList | nn.ModuleDict):
            continue
        parameters = list(module.parameters())
        if parameters and all(uses[id(parameter)] == 1 for parameter in parameters):
            units.append(module)
    return units


def shard(model: TaskModel, mesh: Any) -> None:
    """Share a model's parameters out over the ranks of a mesh, in place.

    A unit, which is gathered as a whole where it is computed, is a module of a block. What lies in
    none, or is tied to a parameter elsewhere (an embedding to the output layer), is a unit of its
    own with the rest and stays gathered while the model computes.
    """
    if isinstance(model, FSDPModule):  # before it had weights
        return
    for module in _units(model):
        fully_shard(module, mesh=mesh)
    # resharded after each forward pass: a root would stay gathered, and techniques look at it
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    register_fsdp_forward_method(model, "generate")


def full(tensor: Tensor) -> Tensor:
    """Gather a tensor that is shared out; all ranks must do so together."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


def whole(layer: Any) -> Any:
    """A copy of a layer, whole also where its parameters are shared out; all ranks must ask together."""
    gathered = {id(p): nn.Parameter(p.full_tensor(), p.requires_grad)
                for p in layer.parameters() if isinstance(p, DTensor)}
    return copy.deepcopy(layer, dict[int, Any](gathered))


def share_of(tensor: Tensor) -> Tensor:
    """This rank's share of a tensor that is shared out; of others all, in the same memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def shares_of(state: Any) -> Any:
    """Plain data with this rank's shares in place of the tensors that are shared out."""
    def plain(value: Any) -> Any:
        if not isinstance(value, DTensor):
            return value
        placement, = value.placements
        dimension = placement.dim if isinstance(placement, Shard) else None
        return (_SHARE, value.to_local(), dimension, [*value.shape], [*value.stride()])

    return tree_map(plain, state)


def shared_out_again(state: Any, model: nn.Module) -> Any:
    """Share out what `shares_of` made plain, as the parameters of a model are."""
    mesh = next((p.device_mesh for p in model.parameters() if isinstance(p, DTensor)), None)

    def is_share(value: Any) -> bool:
        return isinstance(value, tuple) and value[:1] == (_SHARE,)

    def back(value: Any) -> Any:
        if not is_share(value):
            return value
        _, local, dimension, shape, stride = value
        placement = Replicate() if dimension is None else Shard(dimension)
        assert mesh is not None
        return DTensor.from_local(local.to(mesh.device_type), mesh, [placement], run_check=False,
                                  shape=torch.Size(shape), stride=tuple(stride))

    return tree_map(back, state, is_leaf=is_share)


_SHARE = "share of a tensor"


class EvenValidation(Callback):
    """Gives all ranks the same number of forward passes in validation, or they would wait for ever.

    Each example is evaluated once over all ranks, so that some have a batch less; these compute
    their last one again, and count it once.
    """

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.batches = int(trainer.num_val_batches[0])
        counts = torch.tensor([self.batches, -self.batches], device=trainer.strategy.root_device)
        torch.distributed.all_reduce(counts, torch.distributed.ReduceOp.MAX)
        self.most, fewest = int(counts[0]), -int(counts[1])
        if not fewest:
            raise InputError("strategy fsdp: a device has no validation example",
                             "set fewer devices, or more validation examples")

    def on_validation_batch_end(
        self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx + 1 < self.batches:
            return
        for _ in range(self.most - self.batches):
            with trainer.precision_plugin.forward_context():
                module.task.predict(module.model, batch, module.model(batch))
