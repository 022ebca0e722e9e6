from __future__ import annotations

from ftlab.techniques.base import Choice, LogUniform, Optimization
from ftlab.techniques.peft_technique import PeftTechnique


class MiSS(PeftTechnique):
    """Train one small matrix per layer whose rows are shared among groups of inputs, and the head.

    Formerly Bone. Take it where LoRA of the same size learns too slowly. Linear layers only.

    Kang, Yin (2024), https://arxiv.org/abs/2409.15371

    Args:
        rank: rows of the matrix; None for 64, or as many as a layer has inputs.
        targets: endings of the names of the layers to adapt, or ["all"]; None for PEFT's choice,
            every layer that it is right on where it has none.
        last: adapt the last so many blocks alone, counted from the output; None for all blocks.
        lr: peak learning rate.
        optim: optimizer, weight decay and schedule.
    """

    search_space = {"lr": LogUniform(2e-5, 2e-3), "rank": Choice((16, 32, 64))}

    def __init__(
        self,
        rank: int | None = None,
        targets: list[str] | None = None,
        last: int | None = None,
        lr: float = 5e-4,
        optim: Optimization = Optimization(),
    ) -> None:
        super().__init__("miss", {"r": rank}, targets, last, lr, optim)
