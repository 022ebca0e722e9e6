"""bitsandbytes' linear layers of frozen 4- and 8-bit weights, computing alike in training and evaluation.

Imported where a base is quantised, since bitsandbytes is an extra and takes seconds; in a folder of its
own, since all modules of the room are imported when a backbone is looked for. The classes keep its
names, by which PEFT knows them.
"""

from __future__ import annotations

from typing import Any

import bitsandbytes as bnb
import torch
from torch import Tensor, nn


class Linear4bit(bnb.nn.Linear4bit):
    """A linear layer whose weights are numbers of 4 bits, in blocks of 64 with a scale each.

    It computes in the dtype of its input, autocast's where that is on. bitsandbytes' own remembers
    the first dtype that it saw, casts its bias for good, and repacks its weights in evaluation where a
    processor has AVX512-BF16, so that a frozen layer would change and compute something else.

    Args:
        layer: whose weights are quantised; on the meta device their shape stays as it is.
        quant_type: nf4 or fp4.
        double_quant: quantise the scales too, in blocks of 256.
    """

    def __init__(self, layer: nn.Linear, quant_type: str, double_quant: bool) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=False, device="meta",
                         compress_statistics=double_quant, quant_type=quant_type)
        self.bias = layer.bias
        self.support_avx512bf16_for_cpu = False
        weight = bnb.nn.Params4bit(layer.weight.detach(), requires_grad=False, module=self,
                                   compress_statistics=double_quant, quant_type=quant_type)
        self.weight = weight.to(weight.device)

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.is_meta:
            return nn.functional.linear(x, self.weight, self.bias)
        bnb.nn.modules.fix_4bit_weight_quant_state_from_module(self)
        given = bnb.matmul_4bit(_cast(x), self.weight, quant_state=self.weight.quant_state)
        return _with_bias(given, self.bias)

    def dequantized(self) -> Tensor:
        """Compute the weights that it multiplies by, in the dtype that they had."""
        weight: Tensor = bnb.functional.dequantize_4bit(self.weight.data, self.weight.quant_state)
        return weight


class Linear8bitLt(bnb.nn.Linear8bitLt):
    """A linear layer whose weights are integers of 8 bits, with a scale for each output.

    The weights alone are quantised: bitsandbytes' own rounds what they are multiplied by too, to 8
    bits, but on CPUs not while it trains.

    Args:
        layer: whose weights are quantised; on the meta device their shape stays as it is.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=False, device="meta",
                         has_fp16_weights=False)
        self.bias = layer.bias
        self.had = layer.weight.dtype
        weight = bnb.nn.Int8Params(layer.weight.detach(), requires_grad=False,
                                   has_fp16_weights=False)
        self.weight = weight.to(weight.device)
        self.weight.CB = None  # the same tensor once more, which a copy of the layer would double

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.is_meta:
            return nn.functional.linear(x, self.weight, self.bias)
        return _with_bias(_Product.apply(_cast(x), self.weight.data, self.weight.SCB), self.bias)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Take the scales along to a device, which they lose; their dtype stays."""
        scales = self.weight.SCB
        super()._apply(fn, recurse)
        self.weight.SCB = None if scales is None else scales.to(self.weight.device)
        self.weight.CB, self.state.SCB = None, None
        return self

    def dequantized(self) -> Tensor:
        """Compute the weights that it multiplies by, in the dtype that they had."""
        return _weights(self.weight.data, self.weight.SCB, self.had)


class _Product(torch.autograd.Function):
    """x W', without keeping W in floating point for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, integers: Tensor, scales: Tensor) -> Tensor:
        ctx.save_for_backward(integers, scales)
        return nn.functional.linear(x, _weights(integers, scales, x.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        integers, scales = ctx.saved_tensors
        return gradient @ _weights(integers, scales, gradient.dtype), None, None


def _weights(integers: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    return (integers * (scales / 127).unsqueeze(1)).to(dtype)


def _cast(x: Tensor) -> Tensor:
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def _with_bias(given: Tensor, bias: Tensor | None) -> Tensor:
    return given if bias is None else given + bias.to(given.dtype)
