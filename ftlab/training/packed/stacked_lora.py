"""Several LoRA models on one network: one product with the frozen weights for all, a small one each.

The rows of a batch are those of the slots one after another, equally many of each. A layer's
matrices of all slots are one tensor, of which each slot's own parameters are views: whatever
changes a parameter (an optimizer, clipping) changes the stack.

As in HFTA (Wang et al. 2021, https://arxiv.org/abs/2102.02344) and mLoRA (Ye et al. 2023,
https://arxiv.org/abs/2312.02515).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn

from ftlab.backbones.block import lies_below
from ftlab.training.declined import NotApplicable
from ftlab.training.packed.slot_dropout import SlotDropout


class Stack:
    """One parameter of every slot in one tensor, smaller ones padded with zeros.

    Args:
        parameters: one a slot, equal in their last axis; they and their gradients become views.
        transposed: they are stacked transposed, so that a smaller rank is in front.

    Attributes:
        tensor: (K, rank, width), or (K, width) of vectors; with a gradient always.
    """

    def __init__(self, parameters: Sequence[Any], transposed: bool = False) -> None:
        def turned(tensor: Tensor) -> Tensor:
            return tensor.T if transposed else tensor

        own = [turned(parameter.detach()) for parameter in parameters]
        if len({each.shape[-1] for each in own}) > 1:
            raise NotApplicable("a layer has other widths in another run")
        longest = max(own, key=len)
        self.tensor = longest.new_zeros(len(own), *longest.shape)
        self.gradient = torch.zeros_like(self.tensor)
        for slot, (parameter, values) in enumerate(zip(parameters, own, strict=True)):
            view = self.tensor[slot, : len(values)]
            view.copy_(values)
            if parameter.grad is not None:  # a slot went between two updates
                self.gradient[slot, : len(values)].copy_(turned(parameter.grad))
            parameter.data = turned(view)
            parameter.grad = turned(self.gradient[slot, : len(values)])
        self.tensor.requires_grad_(True).grad = self.gradient


def low_rank(x: Tensor, down: Tensor, up: Tensor, scaling: Tensor, base: Tensor) -> Tensor:
    """Of each slot: base + scaling (x A^T) B^T.

    Args:
        x: rows of the slots one after another (K b, ..., in).
        down: A (K, r, in).
        up: B^T (K, r, out).
        scaling: (K, 1, 1), float32 or float64.
        base: what is added to (K b, ..., out).
    """
    inner = torch.bmm(x.reshape(len(down), -1, x.shape[-1]), down.transpose(1, 2))
    inner = (inner * scaling).to(inner.dtype)
    added = torch.baddbmm(base.reshape(len(up), -1, base.shape[-1]), inner, up)
    return added.view_as(base)


class StackedLora:
    """PEFT's LoRA around a linear layer, of every slot.

    Args:
        layers: one a slot; the first has the frozen layer that is used.
    """

    def __init__(self, layers: Sequence[LoraLinear]) -> None:
        self.first = layers[0]
        names = [layer.active_adapters[0] for layer in layers]
        pairs = list(zip(layers, names, strict=True))
        self.down = Stack([layer.lora_A[name].weight for layer, name in pairs])
        self.up = Stack([layer.lora_B[name].weight for layer, name in pairs], transposed=True)
        scaling = torch.tensor([float(layer.scaling[name]) for layer, name in pairs],
                               dtype=torch.promote_types(self.down.tensor.dtype, torch.float32))
        self.scaling = scaling.to(self.down.tensor.device).view(-1, 1, 1)
        self.rates = [getattr(layer.lora_dropout[name], "p", 0.0) for layer, name in pairs]

    def __call__(self, x: Tensor, dropping: SlotDropout | None) -> Tensor:
        base = self.first.base_layer(x)
        x = self.first._cast_input_dtype(x, self.down.tensor.dtype)
        if dropping is not None and any(self.rates):
            x = dropping.dropout(x, self.rates)
        return low_rank(x, self.down.tensor, self.up.tensor, self.scaling, base).to(base.dtype)

    @property
    def stacks(self) -> list[Stack]:
        return [self.down, self.up]


class StackedLinear:
    """A linear layer that trains, of every slot."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        self.weight = Stack([layer.weight for layer in layers])
        self.bias = None if layers[0].bias is None else Stack([layer.bias for layer in layers])

    def __call__(self, x: Tensor, dropping: SlotDropout | None) -> Tensor:
        weight = self.weight.tensor  # (K, out, in)
        rows = x.reshape(len(weight), -1, x.shape[-1])
        if self.bias is None:
            made = torch.bmm(rows, weight.transpose(1, 2))
        else:
            made = torch.baddbmm(self.bias.tensor.unsqueeze(1), rows, weight.transpose(1, 2))
        return made.view(*x.shape[:-1], weight.shape[1])

    @property
    def stacks(self) -> list[Stack]:
        return [self.weight, *([self.bias] if self.bias is not None else [])]


Stacked = StackedLora | StackedLinear


class StackedModel:
    """What trains of several adapted models, stacked on the first one's network.

    Args:
        models: equal but for LoRA's rank, scale and dropout, and the values of what trains. Only
            the first is called; it must stay, though its slot may go.

    Raises:
        Declined: something trains that cannot be stacked.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        self.network = models[0]
        self.layers = {path: _stack([model.get_submodule(path) for model in models])
                       for path in _trained(models)}

    @property
    def stacks(self) -> Iterator[Stack]:
        return (stack for layer in self.layers.values() for stack in layer.stacks)

    def restack(self, models: Sequence[nn.Module]) -> None:
        """Go on with these of the slots."""
        self.layers = {path: _stack([model.get_submodule(path) for model in models])
                       for path in self.layers}

    def zero_grad(self) -> None:
        torch._foreach_zero_([stack.gradient for stack in self.stacks])

    @contextmanager
    def packed(self, dropping: SlotDropout | None) -> Iterator[None]:
        """Within it the network is that of all slots.

        Args:
            dropping: of the slots, in training; None where nothing drops out.
        """
        modules = {path: self.network.get_submodule(path) for path in self.layers}
        try:
            for path, module in modules.items():
                vars(module)["forward"] = _bound(self.layers[path], dropping)
            yield
        finally:
            for module in modules.values():
                vars(module).pop("forward", None)


def _bound(layer: Stacked, dropping: SlotDropout | None) -> Callable[[Tensor], Tensor]:
    return lambda x: layer(x, dropping)


def _stack(layers: Sequence[nn.Module]) -> Stacked:
    loras = [layer for layer in layers if isinstance(layer, LoraLinear)]
    linears = [layer for layer in layers if type(layer) is nn.Linear]
    if len(loras) == len(layers):
        return StackedLora(loras)
    if len(linears) == len(layers):
        return StackedLinear(linears)
    raise NotApplicable("a layer is of another kind in another run")


def _trained(models: Sequence[nn.Module]) -> list[str]:
    """Paths of the layers that train in every model."""
    first, *others = models
    trainable = {name for name, p in first.named_parameters() if p.requires_grad}
    for other in others:
        if trainable != {name for name, p in other.named_parameters() if p.requires_grad}:
            raise NotApplicable("other layers train in another run")
    found: list[str] = []
    for path, module in first.named_modules():
        if isinstance(module, LoraLinear) and _is_plain(module):
            found.append(path)
        elif type(module) is nn.Linear and not lies_below(path, found):
            own = {f"{path}.{name}" for name, _ in module.named_parameters()}
            if own and own <= trainable:
                found.append(path)
    for name in sorted(trainable):
        if not lies_below(name, found):
            raise NotApplicable(f"{name} trains, which is part neither of LoRA on a linear layer nor "
                           "of a linear layer")
    return found


def _is_plain(layer: LoraLinear) -> bool:
    """Whether it is LoRA and no kin of it (DoRA), with one adapter."""
    return (type(layer) is LoraLinear and len(layer.active_adapters) == 1
            and not layer.lora_variant and not layer.merged
            and not any(layer.lora_bias.values()))
