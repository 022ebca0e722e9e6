"""Tensors that have a shape and a dtype and no numbers, with which any network can be computed anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    UnsupportedOperatorException,
)

from ftlab.backbones.quantization import hollow

NEEDS_NUMBERS = (DataDependentOutputException, DynamicOutputShapeException,
                 UnsupportedOperatorException, NotImplementedError)
"""The errors of computations that depend on the numbers in tensors, not on their shapes alone."""

_READ = ("Cannot access data pointer", "Cannot copy out of meta tensor", "numpy() is not supported")


def asks_for_numbers(error: BaseException) -> bool:
    """Return whether an error says that a computation reads the numbers in fake tensors."""
    if isinstance(error, NotImplementedError) and not isinstance(error, UnsupportedOperatorException):
        return False
    return isinstance(error, NEEDS_NUMBERS) or any(words in str(error) for words in _READ)


def mode(outside: bool = True) -> FakeTensorMode:
    """The context in which all that is computed is fake; small tensors made outside may enter, unless said."""
    return FakeTensorMode(allow_non_fake_inputs=outside)


def empty(model: nn.Module, made: FakeTensorMode, device: torch.device | None = None,
          only_meta: bool = False) -> None:
    """Give a model fake tensors, on the CPU unless said, in the place of its own, on the meta device for instance.

    Tied parameters stay tied, and quantised layers on the meta device take what they would with numbers.
    With `only_meta` tensors that have numbers stay.
    """
    def packed(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        with made:
            return torch.empty(shape, dtype=dtype, device=device or "cpu")

    hollow(model, packed)
    fakes: dict[int, Tensor] = {id(weight): weight for weight in model.parameters() if isinstance(weight.data, FakeTensor)}

    def fake(tensor: Tensor) -> Tensor:
        if id(tensor) not in fakes:
            with made:
                shape = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype,
                                            device=device or "cpu")
            fakes[id(tensor)] = (nn.Parameter(shape, tensor.requires_grad)
                                 if isinstance(tensor, nn.Parameter) else shape)
        return fakes[id(tensor)]

    stores: list[dict[str, Any]] = [store for module in model.modules()
                                    for store in (module._parameters, module._buffers)]
    for store in stores:
        store |= {name: fake(tensor) for name, tensor in store.items()
                  if tensor is not None and (tensor.is_meta or not only_meta)}


def batch_like(batch: Mapping[str, Any], made: FakeTensorMode, device: torch.device | None = None) -> Any:
    """A batch of fake tensors in the shapes of a real one, on the CPU unless said."""
    def fake(tensor: Tensor) -> Tensor:
        with made:
            return torch.empty_like(tensor, device=device or "cpu")

    return apply_to_collection(dict(batch), Tensor, fake)
