from __future__ import annotations

from itertools import islice
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from peft.tuners.lora import LoraLayer
from torch import Tensor

from ftlab.backbones.task_model import Batch, TaskModel
from ftlab.data.base import DataModule
from ftlab.techniques.base import Choice, LogUniform, Optimization
from ftlab.techniques.peft_methods import LINEARS
from ftlab.techniques.peft_technique import PeftTechnique


class EVA(PeftTechnique):
    """Train LoRA's low-rank updates, A started along the main directions of its inputs, and the head.

    The directions are the principal components of what the layers read of some training examples,
    before the fit. Ranks are equal in all layers (the paper's rho of 1). Take it in LoRA's place:
    it costs a few forward passes. Linear layers only.

    Paischer, Hauzenberger, Schmied, Alkin, Deisenroth, Hochreiter (2024),
    https://arxiv.org/abs/2410.07170

    Args:
        rank: inner width of the update.
        alpha: scale of the update, divided by the rank; None for twice the rank (the authors take 1).
        batches: of training examples, that the directions are computed from.
        targets: endings of the names of the layers to adapt, or ["all"]; None for PEFT's choice,
            every layer that it is right on where it has none.
        last: adapt the last so many blocks alone, counted from the output; None for all blocks.
        lr: peak learning rate; 10 to 100 times full fine-tuning's.
        optim: optimizer, weight decay and schedule.
    """

    search_space = {"lr": LogUniform(1e-4, 5e-3), "rank": Choice((4, 8, 16, 32))}
    only = LINEARS

    def __init__(
        self,
        rank: int = 8,
        alpha: float | None = None,
        batches: int = 16,
        targets: list[str] | None = None,
        last: int | None = None,
        lr: float = 1e-3,
        optim: Optimization = Optimization(),
    ) -> None:
        if batches < 1:
            raise ValueError(f"batches must be at least 1, got {batches}")
        scale = 2 * rank if alpha is None else alpha
        super().__init__("lora", {"r": rank, "lora_alpha": scale}, targets, last, lr, optim)
        self.batches = batches

    def begin_fit(self, model: TaskModel, data: DataModule, steps: int) -> None:
        layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
        moments = [_Moments() for _ in layers]
        current: Batch = {}
        hooks = [layer.register_forward_pre_hook(
            lambda _, inputs, moment=moment: moment.add(inputs[0], current))
            for layer, moment in zip(layers, moments, strict=True)]
        modes = {module: module.training for module in model.modules()}
        device = next(model.parameters()).device
        model.eval()
        try:
            for batch in islice(data.with_streams(()).train_dataloader(), self.batches):
                current = move_data_to_device(batch, device)
                with torch.no_grad():
                    model(current)
        finally:
            for hook in hooks:
                hook.remove()
            for module, mode in modes.items():
                module.training = mode
        for layer, moment in zip(layers, moments, strict=True):
            start: Any = layer.lora_A["default"].weight
            start.data.copy_(moment.components(len(start)))


class _Moments:
    """Count, sum and products of vectors that come in parts."""

    def __init__(self) -> None:
        self.count = 0
        self.sum: Any = 0.0
        self.products: Any = 0.0

    def add(self, inputs: Tensor, batch: Batch) -> None:
        mask = batch["inputs"].get("attention_mask")
        real = mask is not None and mask.shape == inputs.shape[:-1]
        rows = (inputs[mask.bool()] if real else inputs.flatten(0, -2)).double()
        self.count += len(rows)
        self.sum = self.sum + rows.sum(dim=0)
        self.products = self.products + rows.T @ rows

    def components(self, count: int) -> Tensor:
        """The principal components (count, D), orthonormal, the strongest first."""
        number = torch.tensor(float(self.count), dtype=torch.double, device=self.sum.device)
        if torch.distributed.is_initialized():  # each rank has seen examples of its own
            for part in (number, self.sum, self.products):
                torch.distributed.all_reduce(part)
        mean = self.sum / number
        covariance = self.products / number - torch.outer(mean, mean)
        return torch.linalg.eigh(covariance).eigenvectors.T.flip(0)[:count]
