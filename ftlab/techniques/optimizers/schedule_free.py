from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ftlab.techniques.optimizers.base import Optimizer, loss_of


class ScheduleFree(Optimizer):
    """AdamW that averages its iterates instead of lowering its rate.

    Gradients are taken between the average and the last iterate; what is validated, kept and
    measured is the average. The rate is constant after the warm-up, and often higher than AdamW's.

    Defazio, Yang, Mehta, Mishchenko, Khaled, Cutkosky (2024), https://arxiv.org/abs/2405.15682
    """

    rate = 2.0
    schedule = "constant"

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return _ScheduleFree(groups)


class _ScheduleFree(torch.optim.Optimizer):
    """z -= lr d; x = (1 - c) x + c z; y = (1 - b1) z + b1 x, where parameters are y.

    d is Adam's direction at y, without momentum, and c the rate's share, squared, of all so far.

    Args:
        groups: with `lr` and `weight_decay`, which acts at y.
        betas: b1, and b2 of the second moment.
        eps: added to the root of the second moment.
    """

    def __init__(self, groups: list[dict[str, Any]], betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8) -> None:
        super().__init__(groups, {"lr": 1e-4, "weight_decay": 0.0, "betas": betas, "eps": eps,
                                  "weight": 0.0, "steps": 0, "highest": 0.0})
        self.averaged = False

    @torch.no_grad()
    def eval(self) -> None:
        """Let the parameters be the average x."""
        self._mix(lambda b1: 1 - 1 / b1, averaged=True)

    @torch.no_grad()
    def train(self) -> None:
        """Let the parameters be y, where gradients are taken."""
        self._mix(lambda b1: 1 - b1, averaged=False)

    def _mix(self, towards: Callable[[float], float], averaged: bool) -> None:
        if self.averaged == averaged:
            return
        self.averaged = averaged
        for group in self.param_groups:
            for parameter in group["params"]:
                if "z" in self.state[parameter]:
                    parameter.lerp_(self.state[parameter]["z"], towards(group["betas"][0]))

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # torch's overloads
        loss = loss_of(closure)
        for group in self.param_groups:
            b1, b2 = group["betas"]
            group["steps"] += 1
            group["highest"] = max(group["highest"], group["lr"])
            weight = group["highest"] ** 2
            group["weight"] += weight
            share = weight / group["weight"] if group["weight"] else 0.0
            correction = 1 - b2 ** group["steps"]
            for y in group["params"]:
                if y.grad is None:
                    continue
                state = self.state[y]
                if not state:
                    state |= {"z": y.clone(), "exp_avg_sq": torch.zeros_like(y)}
                moment, z = state["exp_avg_sq"], state["z"]
                moment.mul_(b2).addcmul_(y.grad, y.grad, value=1 - b2)
                direction = y.grad / (moment / correction).sqrt_().add_(group["eps"])
                direction.add_(y, alpha=group["weight_decay"])
                y.lerp_(z, share)
                y.add_(direction, alpha=group["lr"] * (b1 * (1 - share) - 1))
                z.add_(direction, alpha=-group["lr"])
        return loss
