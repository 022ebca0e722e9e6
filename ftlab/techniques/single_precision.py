"""Outputs in single precision, from which metrics and losses are computed."""

from __future__ import annotations

from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from ftlab.tasks.losses.base import at_least_float32


def in_single_precision(outputs: Any) -> Any:
    """Nested outputs or predictions with their half-precision tensors as float32."""
    return apply_to_collection(
        outputs, Tensor, lambda t: at_least_float32(t) if t.is_floating_point() else t)


def added_dtype(like: Tensor) -> torch.dtype:
    """The dtype of what a technique adds beside a weight: float32 beside half precision.

    Steps of a usual rate are below half a digit of bfloat16, and a scaler refuses float16. Whoever
    wants all in half precision sets the trainer's `precision: bf16-true`.
    """
    return torch.promote_types(like.dtype, torch.float32)
