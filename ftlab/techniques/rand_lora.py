from __future__ import annotations

from ftlab.techniques.base import LogUniform, Optimization
from ftlab.techniques.peft_technique import PeftTechnique


class RandLoRA(PeftTechnique):
    """Train scales of many random low-rank products whose sum is of full rank, and the head.

    The random bases are frozen and drawn from the run's seed. Take it where LoRA's low rank is what
    limits it. Linear layers only.

    Albert, Zhang, Saratchandran, Rodriguez-Opazo, van den Hengel, Abbasnejad (2025),
    https://arxiv.org/abs/2502.00987

    Args:
        rank: width of each product; fewer numbers train with larger ones; None for 32, or
            for the layers' width below it.
        alpha: scale of the update, divided by the rank; None for 20 times the rank.
        targets: endings of the names of the layers to adapt, or ["all"]; None for PEFT's choice,
            every layer that it is right on where it has none.
        last: adapt the last so many blocks alone, counted from the output; None for all blocks.
        lr: peak learning rate.
        optim: optimizer, weight decay and schedule.
    """

    search_space = {"lr": LogUniform(1e-4, 1e-2)}

    def __init__(
        self,
        rank: int | None = None,
        alpha: float | None = None,
        targets: list[str] | None = None,
        last: int | None = None,
        lr: float = 1e-3,
        optim: Optimization = Optimization(),
    ) -> None:
        super().__init__("randlora", {
            "r": rank, "randlora_alpha": 20 * (rank or 32) if alpha is None else alpha}, targets, last, lr, optim)
