from __future__ import annotations

from ftlab.techniques.base import Choice, LogUniform, Optimization
from ftlab.techniques.peft_technique import PeftTechnique


class RsLoRA(PeftTechnique):
    """Train LoRA's low-rank updates scaled by alpha / sqrt(rank), and the head.

    Updates of high ranks then learn as fast as those of low ones. Take it in LoRA's place from a rank
    of about 16 on.

    Kalajdzievski (2023), https://arxiv.org/abs/2312.03732

    Args:
        rank: inner width of the update.
        alpha: scale of the update, divided by the root of the rank.
        dropout: probability on the update's input.
        targets: endings of the names of the layers to adapt, or ["all"]; None for PEFT's choice,
            every layer where it has none.
        last: adapt the last so many blocks alone, counted from the output; None for all blocks.
        lr: peak learning rate; 10 to 100 times full fine-tuning's.
        optim: optimizer, weight decay and schedule.
    """

    search_space = {"lr": LogUniform(1e-4, 5e-3), "rank": Choice((16, 32, 64, 128))}

    def __init__(
        self,
        rank: int = 32,
        alpha: float = 16.0,
        dropout: float = 0.0,
        targets: list[str] | None = None,
        last: int | None = None,
        lr: float = 1e-3,
        optim: Optimization = Optimization(),
    ) -> None:
        super().__init__("lora", {"r": rank, "lora_alpha": alpha, "lora_dropout": dropout, "use_rslora": True}, targets, last, lr, optim)
