"""bitsandbytes' layers of frozen 4- and 8-bit weights, computing alike in training and evaluation.

Imported where a base is quantised, since bitsandbytes is an extra and takes seconds; in a folder of its
own, since all modules of the room are imported when a backbone is looked for. The classes keep its
names, by which PEFT knows them.
"""

from __future__ import annotations

from collections.abc import Callable
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
        if getattr(self.weight, "quant_state", None) is None and getattr(self, "quant_state", None) is None:
            return _with_bias(_Shaped.apply(_cast(x), self.out_features), self.bias)
        bnb.nn.modules.fix_4bit_weight_quant_state_from_module(self)
        given = bnb.matmul_4bit(_cast(x), self.weight, quant_state=self.weight.quant_state)
        return _with_bias(given, self.bias)

    def hollow(self, make: Callable[[tuple[int, ...], torch.dtype], Tensor], size: int) -> None:
        """Take a tensor without numbers in the place of weights and scales, which together have `size` bytes."""
        self.weight = nn.Parameter(make((size,), torch.uint8), requires_grad=False)

    def dequantized(self) -> Tensor:
        """Compute the weights that it multiplies by, in the dtype that they had."""
        weight: Tensor = bnb.functional.dequantize_4bit(self.weight.data, self.weight.quant_state)
        return weight


class _Rows:
    """Integers of 8 bits with a scale for each row, which bitsandbytes keeps on the parameter."""

    weight: Any
    had: torch.dtype

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Take the scales along to a device, which they lose; their dtype stays."""
        scales = self.weight.SCB
        super()._apply(fn, recurse)  # type: ignore[misc]  # of the module that it is mixed into
        self.weight.SCB = None if scales is None else scales.to(self.weight.device)
        self.weight.CB = None
        return self

    def hollow(self, make: Callable[[tuple[int, ...], torch.dtype], Tensor], size: int) -> None:
        """Take tensors without numbers in the place of weights and scales."""
        weight: Any = nn.Parameter(make(tuple(self.weight.shape), torch.int8), requires_grad=False)
        weight.SCB, weight.CB = make((len(weight),), torch.float32), None
        self.weight = weight

    def dequantized(self) -> Tensor:
        """Compute the weights that it stands for, in the dtype that they had."""
        return _weights(self.weight.data, self.weight.SCB, self.had)


class Linear8bitLt(_Rows, bnb.nn.Linear8bitLt):
    """A linear layer whose weights are integers of 8 bits, with a scale for each output.

    The weights alone are quantised: bitsandbytes' own rounds what they are multiplied by too, to 8
    bits, but on CPUs not while it trains.

    Args:
        layer: whose weights are quantised; on the meta device their shape stays as it is.
        weight: quantised already, of the table that the layer is tied to.
    """

    def __init__(self, layer: nn.Linear, weight: bnb.nn.Int8Params | None = None) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=False, device="meta",
                         has_fp16_weights=False)
        self.bias = layer.bias
        self.had = layer.weight.dtype
        self.weight = _rows_of(layer.weight) if weight is None else weight

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.is_meta:
            return nn.functional.linear(x, self.weight, self.bias)
        return _with_bias(_Product.apply(_cast(x), self.weight.data, self.weight.SCB), self.bias)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        self.state.SCB = None
        return self


class Embedding8bit(_Rows, bnb.nn.Embedding8bit):
    """A table of embeddings whose rows are integers of 8 bits, with a scale each.

    It gives the dtype that the network has, whatever that becomes. bitsandbytes' own keeps the first,
    has no padding row, and cannot be saved.

    Args:
        table: whose weights are quantised; on the meta device their shape stays as it is.
    """

    def __init__(self, table: nn.Embedding) -> None:
        nn.Embedding.__init__(self, table.num_embeddings, table.embedding_dim, table.padding_idx, device="meta")
        self.dtype = self.had = table.weight.dtype
        self.weight = _rows_of(table.weight)

    def forward(self, input: Tensor) -> Tensor:
        if self.weight.is_meta:
            return nn.functional.embedding(input, self.weight)
        return _weights(self.weight.data[input], self.weight.SCB[input], self.dtype)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self.dtype = fn(torch.empty(0, dtype=self.dtype)).dtype
        return super()._apply(fn, recurse)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        nn.Module._save_to_state_dict(self, destination, prefix, keep_vars)


def _rows_of(weight: Tensor) -> bnb.nn.Int8Params:
    """Quantise a matrix by its rows."""
    made = bnb.nn.Int8Params(weight.detach(), requires_grad=False, has_fp16_weights=False)
    made = made.to(made.device)
    made.CB = None  # the same tensor once more, which a copy of the layer would double
    return made


class _Shaped(torch.autograd.Function):
    """x W' of 4-bit weights that have no numbers: W comes and goes in floating point, in both passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, outputs: int) -> Tensor:
        ctx.outputs = outputs, x.shape[-1]
        return nn.functional.linear(x, x.new_empty(ctx.outputs))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        return gradient @ gradient.new_empty(ctx.outputs), None


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
    return (integers * (scales / 127).unsqueeze(-1)).to(dtype)


def _cast(x: Tensor) -> Tensor:
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def _with_bias(given: Tensor, bias: Tensor | None) -> Tensor:
    return given if bias is None else given + bias.to(given.dtype)
