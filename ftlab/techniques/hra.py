from __future__ import annotations

from ftlab.techniques.base import Choice, LogUniform, Optimization
from ftlab.techniques.peft_technique import PeftTechnique


class HRA(PeftTechnique):
    """Train a chain of Householder reflections of each layer's input, and the head.

    The weights turn and keep their lengths, as in OFT, by a low-rank update, as in LoRA. Take it for
    small data; its steps take a third longer than LoRA's, on convolutions far longer.

    Yuan, Liu, Xu (2024), https://arxiv.org/abs/2405.17484

    Args:
        rank: number of reflections, even.
        targets: endings of the names of the layers to adapt, or ["all"]; None for PEFT's choice,
            every layer that it is right on where it has none.
        last: adapt the last so many blocks alone, counted from the output; None for all blocks.
        lr: peak learning rate.
        optim: optimizer, weight decay and schedule.
    """

    search_space = {"lr": LogUniform(1e-4, 1e-2), "rank": Choice((2, 4, 8, 16))}

    def __init__(
        self,
        rank: int = 8,
        targets: list[str] | None = None,
        last: int | None = None,
        lr: float = 1e-3,
        optim: Optimization = Optimization(),
    ) -> None:
        if rank % 2:
            raise ValueError(f"rank must be even, so that reflections start in pairs, got {rank}")
        super().__init__("hra", {"r": rank}, targets, last, lr, optim)
