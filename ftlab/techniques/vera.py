from __future__ import annotations

from ftlab.techniques.base import Choice, LogUniform, Optimization
from ftlab.techniques.peft_technique import PeftTechnique


class VeRA(PeftTechnique):
    """Train two vectors per layer that scale random projections which all layers share, and the head.

    The projections are frozen and drawn from the run's seed. Take it where every number that is kept
    counts: its checkpoints are a tenth of LoRA's. Linear layers only.

    Kopiczko, Blankevoort, Asano (2023), https://arxiv.org/abs/2310.11454

    Args:
        rank: inner width of the projections.
        start: initial value of the inner scales.
        targets: endings of the names of the layers to adapt, or ["all"]; None for PEFT's choice,
            every layer that it is right on where it has none.
        last: adapt the last so many blocks alone, counted from the output; None for all blocks.
        lr: peak learning rate; about 10 times LoRA's.
        optim: optimizer, weight decay and schedule.
    """

    search_space = {"lr": LogUniform(1e-3, 1e-1), "rank": Choice((64, 256, 1024))}

    def __init__(
        self,
        rank: int = 256,
        start: float = 0.1,
        targets: list[str] | None = None,
        last: int | None = None,
        lr: float = 1e-2,
        optim: Optimization = Optimization(),
    ) -> None:
        super().__init__("vera", {"r": rank, "d_initial": start}, targets, last, lr, optim)
