from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ftlab.backbones.task_model import Batch, TaskModel
from ftlab.data.base import DataModule
from ftlab.tasks.base import Task
from ftlab.techniques.base import Choice, LogUniform, Optimization
from ftlab.techniques.peft_technique import PeftTechnique

BETA = 0.85  # the paper's smoothing of sensitivity and of its uncertainty


class AdaLoRA(PeftTechnique):
    """Train low-rank updates P E Q whose ranks move to the layers that need them, and the head.

    Singular triplets start at `start_rank` a layer and are cut by importance to `rank` a layer on
    average, along a cubic. Each validation, and the checkpoint kept of it, is of the model cut to the
    final budget already, so that no epoch wins by ranks that it must give up. Take it where layers
    differ in what they have to learn, for fits of hundreds of updates and more.

    Zhang, Chen, Bukharin, Karampatziakis, He, Cheng, Chen, Zhao (2023),
    https://arxiv.org/abs/2303.10512

    Args:
        rank: of a layer at the end, on average.
        start_rank: of each layer at the start, above `rank`.
        orthogonality: weight of the added loss, the mean distance of P'P and QQ' from identity.
        warmup: fraction of the updates before anything is cut.
        final: fraction of the updates after the last cut.
        targets: endings of the names of the layers to adapt, or ["all"]; None for PEFT's choice,
            every layer where it has none.
        lr: peak learning rate; 10 to 100 times full fine-tuning's.
        optim: optimizer, weight decay and schedule.
    """

    search_space = {"lr": LogUniform(1e-4, 5e-3), "orthogonality": Choice((0.1, 0.3, 0.5))}

    def __init__(
        self,
        rank: int = 8,
        start_rank: int = 12,
        orthogonality: float = 0.1,
        warmup: float = 0.1,
        final: float = 0.5,
        targets: list[str] | None = None,
        lr: float = 1e-3,
        optim: Optimization = Optimization(),
    ) -> None:
        if not 1 <= rank < start_rank:
            raise ValueError(f"rank must be at least 1 and below start_rank {start_rank}, got {rank}")
        if orthogonality < 0:
            raise ValueError(f"orthogonality must not be negative, got {orthogonality}")
        if min(warmup, final) < 0 or warmup + final >= 1:
            raise ValueError(f"warmup and final are fractions that leave some updates between them, "
                             f"got {warmup} and {final}")
        config = {"init_r": start_rank, "target_r": rank, "lora_alpha": 2 * start_rank,
                  "total_step": 1}  # of PEFT's own budget, which is not used
        super().__init__("adalora", config, targets, None, lr, optim)
        self.rank, self.start_rank, self.orthogonality = rank, start_rank, orthogonality
        self.warmup, self.final = warmup, final

    def begin_fit(self, model: TaskModel, data: DataModule, steps: int) -> None:
        self.layers = triplets(model)
        self.first = int(self.warmup * steps)
        self.last_cut = max(self.first + 1, steps - int(self.final * steps))
        self.sensitivity: dict[tuple[int, int], Tensor] = {}  # by layer, and place in its triplet
        self.uncertainty: dict[tuple[int, int], Tensor] = {}
        self.kept: list[Tensor] | None = None
        self.updates = 0

    def budget(self, step: int) -> int:
        """Triplets that the network keeps after an update, counted from 1."""
        start, end = self.start_rank * len(self.layers), self.rank * len(self.layers)
        if step <= self.first:
            return start
        left = 1 - (step - self.first) / (self.last_cut - self.first)
        return end if step >= self.last_cut else int(end + (start - end) * left**3)

    def objective(self, model: TaskModel, task: Task, batch: Batch) -> Tensor:
        loss = super().objective(model, task, batch)
        if not self.orthogonality:
            return loss
        squares = [product for p, _, q in triplets(model) for product in (p.T @ p, q @ q.T)]
        gaps = [torch.linalg.norm(square - torch.eye(len(square), device=square.device))
                for square in squares]
        return loss + self.orthogonality * torch.stack(gaps).mean()

    @torch.no_grad()
    def after_step(self, model: TaskModel, step: int) -> None:
        self.updates = step
        if step <= self.last_cut:
            self._learn_importance()
            if step > self.first:
                self.kept = self._best(self.budget(step))
        if self.kept is not None:
            self._cut(self.kept)

    def evaluated(self, model: TaskModel) -> AbstractContextManager[Any]:
        return self._at_the_final_budget()

    @contextmanager
    def _at_the_final_budget(self) -> Iterator[None]:
        before = [values.detach().clone() for _, values, _ in self.layers]
        if self.sensitivity and self.updates < self.last_cut:
            self._cut(self._best(self.rank * len(self.layers)))
        yield
        with torch.no_grad():
            for (_, values, _), old in zip(self.layers, before, strict=True):
                values.copy_(old)

    def _learn_importance(self) -> None:
        """Smooth each number's sensitivity |w g|, and how far it strays from what it was."""
        for key, parameter in self._numbered():
            if parameter.grad is None:
                continue
            now = (parameter * parameter.grad).abs()
            zero = torch.zeros_like(now)
            mean = BETA * self.sensitivity.get(key, zero) + (1 - BETA) * now
            stray = BETA * self.uncertainty.get(key, zero) + (1 - BETA) * (now - mean).abs()
            self.sensitivity[key], self.uncertainty[key] = mean, stray

    def _best(self, count: int) -> list[Tensor]:
        """Say of each layer's triplets which are among the most important in all layers."""
        scores: list[Tensor] = []
        for number in range(len(self.layers)):
            p, e, q = (self._score(number, place) for place in range(3))
            scores.append(e[:, 0] + p.mean(dim=0) + q.mean(dim=1))
        order = torch.cat(scores).argsort(descending=True, stable=True)
        chosen = torch.zeros(len(order), dtype=torch.bool, device=order.device)
        chosen[order[:count]] = True
        return list(chosen.split([len(score) for score in scores]))

    def _numbered(self) -> Iterator[tuple[tuple[int, int], nn.Parameter]]:
        for number, layer in enumerate(self.layers):
            for place, parameter in enumerate(layer):
                yield (number, place), parameter

    def _score(self, number: int, place: int) -> Tensor:
        key, zero = (number, place), torch.zeros_like(self.layers[number][place])
        return self.sensitivity.get(key, zero) * self.uncertainty.get(key, zero)

    @torch.no_grad()
    def _cut(self, kept: list[Tensor]) -> None:
        for (_, values, _), mask in zip(self.layers, kept, strict=True):
            values.mul_(mask[:, None])


def triplets(model: nn.Module) -> list[tuple[nn.Parameter, nn.Parameter, nn.Parameter]]:
    """P (outputs, r), E (r, 1) and Q (r, inputs) of each adapted layer."""
    layers: list[Any] = [module for module in model.modules() if hasattr(module, "lora_E")]
    return [(layer.lora_B["default"], layer.lora_E["default"], layer.lora_A["default"])
            for layer in layers]
