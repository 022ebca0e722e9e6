"""Precisions that Lightning names `-true`: weights and arithmetic in one dtype."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from lightning.pytorch.plugins.precision import Precision
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from ftlab.errors import InputError
from ftlab.training.trainer_settings import TrainerSettings

DTYPES = {"bf16-true": torch.bfloat16, "64-true": torch.float64}
"""Dtypes of the weights, where they are not the backbone's own."""

Context = Callable[[], AbstractContextManager[Any]]
"""Makes the context that a model computes in: autocast, for a mixed precision."""


class TruePrecision(Precision):
    """Inputs in the weights' dtype, and nothing else.

    Lightning's own plugins also convert the LightningModule (its metrics would count in bfloat16,
    where 256 + 1 is 256), the targets (the year 1999 would become 2000) and torch's default
    dtype. Here the model is converted before the guards look at it, with `convert`.

    Args:
        name: Lightning's.
    """

    def __init__(self, name: str) -> None:
        self.precision = name  # type: ignore[assignment]  # Lightning's base knows `32-true` alone

    def convert_input(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        return convert_inputs(data, self.precision)


def chosen(settings: TrainerSettings, device: torch.device) -> dict[str, Any]:
    """The arguments of Lightning's Trainer for a precision.

    Raises:
        InputError: the device has none such; Lightning would take another.
    """
    if settings.precision in DTYPES:
        return {"plugins": [TruePrecision(settings.precision)]}
    if settings.precision == "16-mixed" and device.type == "cpu":
        raise InputError("precision 16-mixed needs a GPU: on the CPU there is no float16 autocast",
                         "set trainer: {precision: bf16-mixed}")
    return {"precision": settings.precision}


def context_of(precision: str, device: torch.device) -> Context:
    """The context that a model computes in without a Trainer: autocast, for a mixed precision."""
    if not precision.endswith("-mixed"):
        return nullcontext
    half = torch.bfloat16 if precision.startswith("bf16") else torch.float16
    return lambda: torch.autocast(device.type, dtype=half)


def convert(model: nn.Module, precision: str) -> None:
    """Give a model's weights the dtype of a `-true` precision; of others none."""
    if precision in DTYPES:
        model.to(DTYPES[precision])


def convert_inputs(batch: Mapping[str, Any], precision: str) -> dict[str, Any]:
    """A batch whose floating-point inputs have the dtype of a `-true` precision."""
    if precision not in DTYPES:
        return dict(batch)

    def converted(tensor: Tensor) -> Tensor:
        return tensor.to(DTYPES[precision]) if tensor.is_floating_point() else tensor

    made = {**batch, "inputs": apply_to_collection(batch["inputs"], Tensor, converted)}
    if beside := batch.get("beside"):
        made["beside"] = {name: convert_inputs(part, precision) for name, part in beside.items()}
    return made
