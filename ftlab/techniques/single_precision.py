"""Outputs in single precision, from which metrics and losses are computed."""

from __future__ import annotations

from typing import Any

from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from ftlab.tasks.losses.base import at_least_float32


def in_single_precision(outputs: Any) -> Any:
    """Nested outputs or predictions with their half-precision tensors as float32."""
    return apply_to_collection(
        outputs, Tensor, lambda t: at_least_float32(t) if t.is_floating_point() else t)
