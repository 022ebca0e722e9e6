from __future__ import annotations

from ftlab.techniques.base import Choice, LogUniform, Optimization
from ftlab.techniques.peft_technique import PeftTechnique


class LoKr(PeftTechnique):
    """Train a Kronecker product of a small matrix and a low-rank one beside each weight, and the head.

    Take it where few numbers may be kept and the update may not be of low rank, and for convolutions.

    Yeh, Hsieh, Gao, Yang, Oh, Gong (2023), https://arxiv.org/abs/2309.14859

    Args:
        rank: inner width of the second matrix, where that is smaller than the matrix itself.
        alpha: scale of the update, divided by the rank; None for the rank.
        targets: endings of the names of the layers to adapt, or ["all"]; None for PEFT's choice,
            every layer that it is right on where it has none.
        last: adapt the last so many blocks alone, counted from the output; None for all blocks.
        lr: peak learning rate.
        optim: optimizer, weight decay and schedule.
    """

    search_space = {"lr": LogUniform(1e-4, 2e-2), "rank": Choice((4, 8, 16))}

    def __init__(
        self,
        rank: int = 8,
        alpha: float | None = None,
        targets: list[str] | None = None,
        last: int | None = None,
        lr: float = 3e-3,
        optim: Optimization = Optimization(),
    ) -> None:
        super().__init__("lokr", {"r": rank, "alpha": rank if alpha is None else alpha}, targets, last, lr, optim)
