from __future__ import annotations

from ftlab.techniques.base import Choice, LogUniform, Optimization
from ftlab.techniques.peft_technique import PeftTechnique


class DoRA(PeftTechnique):
    """Train each weight's direction by a low-rank update and its length by a vector, and the head.

    The lengths are those of the rows of W + s B A, one per output. Take it where LoRA of the same rank
    falls short of full fine-tuning, and take a slightly lower rate than LoRA's.

    Liu, Wang, Yin, Molchanov, Wang, Cheng, Chen (2024), https://arxiv.org/abs/2402.09353

    Args:
        rank: inner width of the update.
        alpha: scale of the update, divided by the rank; None for twice the rank.
        dropout: probability on the update's input.
        targets: endings of the names of the layers to adapt, or ["all"]; None for PEFT's choice,
            every layer where it has none.
        last: adapt the last so many blocks alone, counted from the output; None for all blocks.
        lr: peak learning rate.
        optim: optimizer, weight decay and schedule.
    """

    search_space = {"lr": LogUniform(5e-5, 2e-3), "rank": Choice((4, 8, 16, 32))}

    def __init__(
        self,
        rank: int = 8,
        alpha: float | None = None,
        dropout: float = 0.0,
        targets: list[str] | None = None,
        last: int | None = None,
        lr: float = 5e-4,
        optim: Optimization = Optimization(),
    ) -> None:
        super().__init__("lora", {
            "r": rank, "lora_alpha": 2 * rank if alpha is None else alpha, "lora_dropout": dropout,
            "use_dora": True,
        }, targets, last, lr, optim)
