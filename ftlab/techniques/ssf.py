from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers.pytorch_utils import Conv1D

from ftlab.backbones.block import lies_below
from ftlab.backbones.quantization import READS_WEIGHTS, is_quantized
from ftlab.backbones.task_model import TaskModel
from ftlab.errors import Incompatible
from ftlab.techniques.base import LogUniform, Optimization, Technique, freeze_all_but_head
from ftlab.techniques.freezing import Attached
from ftlab.techniques.single_precision import added_dtype

_LAST = (nn.Linear, Conv1D, nn.LayerNorm)
_SECOND = (nn.Conv1d, nn.Conv2d, nn.GroupNorm, _BatchNorm)


class ScaleShift(Attached):
    """x * scale + shift over the channels of x.

    Args:
        like: the layer's weight, for the device and, but for half precision, the dtype.
        width: how many channels.
        shifts: whether there is a shift.
        axis: of the channels in x, 1 or -1.
        noise: standard deviation at the start, around 1 and 0.
    """

    def __init__(self, like: Tensor, width: int, shifts: bool, axis: int, noise: float) -> None:
        super().__init__()
        self.axis = axis
        dtype = added_dtype(like)
        self.scale = nn.Parameter(torch.ones(width, dtype=dtype, device=like.device))
        self.shift = nn.Parameter(torch.zeros_like(self.scale)) if shifts else None
        if noise:
            nn.init.normal_(self.scale, mean=1.0, std=noise)
            if self.shift is not None:
                nn.init.normal_(self.shift, std=noise)

    def forward(self, x: Tensor) -> Tensor:
        shape = [-1] + [1] * (x.ndim - 2) if self.axis == 1 else [-1]
        scaled = x * self.scale.view(shape)
        if self.shift is not None:
            scaled = scaled + self.shift.view(shape)
        return scaled.to(x.dtype)


class SSF(Technique):
    """Train a scale and a shift of the channels after every layer of the blocks, and the head.

    After each linear layer, normalisation and convolution; the layers themselves stay frozen.
    Both fold into the layer's weight and bias exactly, so that the result costs nothing at
    inference. A layer without a bias gets a scale alone, since there is no place for a shift.
    Left out are layers whose weights are read without calling them (torchvision's attention), and
    norms that have no shift in any network (RMS norms).

    Lian, Zhou, Feng, Wang (2022), https://arxiv.org/abs/2210.08823

    Args:
        noise: standard deviation of scales around 1 and shifts around 0 at the start; the paper's
            code has 0.02. With 0 training starts from the backbone's own function.
        last: adapt the last so many blocks alone, counted from the output, so that those before
            them can be computed once; None for all blocks.
        lr: peak learning rate; 10 to 100 times full fine-tuning's.
        optim: optimizer and schedule; scales and shifts have no weight decay.
    """

    search_space = {"lr": LogUniform(2e-4, 5e-2)}

    def __init__(
        self,
        noise: float = 0.0,
        last: int | None = None,
        lr: float = 5e-3,
        optim: Optimization = Optimization(),
    ) -> None:
        super().__init__(lr, optim)
        if noise < 0:
            raise ValueError(f"noise must be at least 0, got {noise}")
        if last is not None and last < 1:
            raise ValueError(f"last must be at least 1, got {last}")
        self.noise, self.last = noise, last
        self.identity_at_start = noise == 0  # type: ignore[misc]  # it depends on the noise

    def adapt(self, model: TaskModel) -> None:
        if self.last is not None and self.last > len(model.blocks):
            raise Incompatible(f"SSF(last={self.last}): the model has {len(model.blocks)} blocks",
                               "choose a smaller `last`, or null for all")
        layers = scaled_layers(model, self.last)
        if not layers:
            raise Incompatible("SSF finds no linear layer, norm or convolution in the blocks that "
                               "it could scale and fold", "take LoRA for this backbone")
        freeze_all_but_head(model)
        for layer in layers:
            width = layer.out_features if is_quantized(layer) else layer.weight.shape[_outputs(layer)]
            shifts = layer.bias is not None
            layer.add_module("ssf", ScaleShift(layer.weight, width, shifts, _axis(layer) or -1,
                                               self.noise))
            layer.register_forward_hook(_scale_and_shift)

    def merge(self, model: nn.Module) -> bool:
        layers: list[Any] = [m for m in model.modules()
                             if isinstance(m._modules.get("ssf"), ScaleShift)]
        if any(map(is_quantized, layers)):
            return False
        with torch.no_grad():
            for layer in layers:
                _fold(layer, layer.ssf)
                del layer.ssf
        return bool(layers)


def scaled_layers(model: TaskModel, last: int | None) -> list[Any]:
    """Layers of the last blocks that are called, and linear in a weight and bias of their own."""
    uses = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    uncalled = [name for name, m in model.named_modules() if type(m).__name__ in READS_WEIGHTS]
    uncalled += [f"network.{path}" for path in model.inert]
    uncalled += [f"{name}.qkv" for name, m in model.named_modules()  # timm's BEiT and Swin v2
                 if getattr(m, "q_bias", None) is not None]
    return [module for block in model.blocks[-last if last else 0 :]
            for name, module in block.named_modules()
            if _axis(module) is not None and not lies_below(name, uncalled)
            and isinstance(weight := module._parameters.get("weight"), nn.Parameter)
            and uses[id(weight)] == 1]


def _axis(layer: Any) -> int | None:
    """Where a layer's output has its channels; None for one that is not linear in its weight."""
    if is_quantized(layer):
        return None if isinstance(layer, nn.Embedding) else -1
    own = [kind for kind in (*_LAST, *_SECOND) if type(layer).forward is kind.forward]
    if own:
        return 1 if own[0] in _SECOND else -1
    if not isinstance(layer, nn.LayerNorm) or "Act" in type(layer).__name__:
        return None
    if "data_format" in vars(layer):  # transformers' ConvNeXt
        return 1 if layer.data_format == "channels_first" else -1
    return 1 if type(layer).__name__ == "LayerNorm2d" else None  # torchvision's, timm's


def _outputs(layer: nn.Module) -> int:
    """The axis of a layer's weight that has its outputs."""
    return 1 if isinstance(layer, Conv1D) else 0


def _fold(layer: Any, added: ScaleShift) -> None:
    """Make weight and bias of a layer those of the layer followed by `added`."""
    scale, weight = added.scale.float(), layer.weight
    shape = [1] * weight.ndim
    shape[_outputs(layer)] = -1
    weight.copy_(weight.float() * scale.view(shape))
    if added.shift is not None:
        layer.bias.copy_(layer.bias.float() * scale + added.shift.float())


def _scale_and_shift(layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> Any:
    added = layer._modules.get("ssf")
    return output if added is None else added(output)  # none once it is folded
