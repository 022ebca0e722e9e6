from __future__ import annotations

from ftlab.techniques.base import Choice, LogUniform, Optimization
from ftlab.techniques.peft_technique import PeftTechnique


class PiSSA(PeftTechnique):
    """Train the strongest singular directions of each weight as low-rank factors, and the head.

    The rest of the weight is frozen; together they start as the weight itself. Take it where LoRA
    learns too slowly. Linear layers only; the random decomposition (`niter`) is not offered, since
    its start cannot be made again to the bit.

    Meng, Wang, Zhang (2024), https://arxiv.org/abs/2404.02948

    Args:
        rank: width of the factors, at most the layers'.
        targets: endings of the names of the layers to adapt, or ["all"]; None for PEFT's choice,
            every layer that it is right on where it has none.
        last: adapt the last so many blocks alone, counted from the output; None for all blocks.
        lr: peak learning rate.
        optim: optimizer, weight decay and schedule.
    """

    search_space = {"lr": LogUniform(1e-5, 1e-3), "rank": Choice((8, 16, 32, 64))}

    def __init__(
        self,
        rank: int = 16,
        targets: list[str] | None = None,
        last: int | None = None,
        lr: float = 2e-4,
        optim: Optimization = Optimization(),
    ) -> None:
        # alpha is the rank, so that the factors are not scaled
        config = {"r": rank, "lora_alpha": rank, "init_lora_weights": "pissa"}
        super().__init__("lora", config, targets, last, lr, optim)
