from __future__ import annotations

from ftlab.techniques.base import Choice, LogUniform, Optimization
from ftlab.techniques.peft_technique import PeftTechnique


class LoHa(PeftTechnique):
    """Train the elementwise product of two low-rank matrices beside each weight, and the head.

    The update's rank goes up to the square of the factors'. Take it for convolutions, and where the
    update may not be of low rank.

    Hyeon-Woo, Ye-Bin, Oh (2021), https://arxiv.org/abs/2108.06098; for fine-tuning: Yeh, Hsieh, Gao,
    Yang, Oh, Gong (2023), https://arxiv.org/abs/2309.14859

    Args:
        rank: inner width of both factors.
        alpha: scale of the update, divided by the rank; None for the rank.
        targets: endings of the names of the layers to adapt, or ["all"]; None for PEFT's choice,
            every layer that it is right on where it has none.
        last: adapt the last so many blocks alone, counted from the output; None for all blocks.
        lr: peak learning rate.
        optim: optimizer, weight decay and schedule.
    """

    search_space = {"lr": LogUniform(1e-4, 5e-3), "rank": Choice((4, 8, 16))}

    def __init__(
        self,
        rank: int = 8,
        alpha: float | None = None,
        targets: list[str] | None = None,
        last: int | None = None,
        lr: float = 1e-3,
        optim: Optimization = Optimization(),
    ) -> None:
        super().__init__("loha", {"r": rank, "alpha": rank if alpha is None else alpha}, targets, last, lr, optim)
