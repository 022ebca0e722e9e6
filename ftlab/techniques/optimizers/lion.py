from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ftlab.techniques.optimizers.base import Optimizer, loss_of


class Lion(Optimizer):
    """The sign of an average of gradients, all steps of one size; half of Adam's memory.

    Its rate is three to ten times smaller than AdamW's, its weight decay as much larger.

    Chen, Liang, Huang, Real, Wang, Liu, Pham, Dong, Luong, Hsieh, Lu, Le (2023),
    https://arxiv.org/abs/2302.06675
    """

    rate = 0.2

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return _Lion(groups)


class _Lion(torch.optim.Optimizer):
    """c = b1 m + (1 - b1) g; w -= lr (sign(c) + decay w); m = b2 m + (1 - b2) g."""

    def __init__(self, groups: list[dict[str, Any]], betas: tuple[float, float] = (0.9, 0.99)
                 ) -> None:
        super().__init__(groups, {"lr": 1e-4, "weight_decay": 0.0, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # torch's overloads
        loss = loss_of(closure)
        for group in self.param_groups:
            first, second = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["exp_avg"] = torch.zeros_like(parameter)
                average, gradient = state["exp_avg"], parameter.grad
                direction = average.lerp(gradient, 1 - first).sign_()
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(direction, alpha=-group["lr"])
                average.lerp_(gradient, 1 - second)
        return loss
