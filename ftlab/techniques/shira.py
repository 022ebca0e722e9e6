from __future__ import annotations

from ftlab.techniques.base import Choice, LogUniform, Optimization
from ftlab.techniques.peft_technique import PeftTechnique


class SHiRA(PeftTechnique):
    """Train a few of each weight's own entries, chosen at random, and the head.

    As many as LoRA of the same rank has numbers; their places are drawn from the run's seed. Take it
    where adapters are to be switched or added up. Linear layers only.

    Bhardwaj, Pandey, Priyadarshi, Ganapathy, Kadambi, Esteves, Borse, Whatmough, Garrepalli, Van
    Baalen, Teague, Nagel (2024), https://arxiv.org/abs/2406.13175

    Args:
        rank: of LoRA's updates with as many numbers; None for 32, or for as many as a layer has.
        targets: endings of the names of the layers to adapt, or ["all"]; None for PEFT's choice,
            every layer that it is right on where it has none.
        last: adapt the last so many blocks alone, counted from the output; None for all blocks.
        lr: peak learning rate.
        optim: optimizer, weight decay and schedule.
    """

    search_space = {"lr": LogUniform(5e-5, 3e-3), "rank": Choice((8, 16, 32))}

    def __init__(
        self,
        rank: int | None = None,
        targets: list[str] | None = None,
        last: int | None = None,
        lr: float = 3e-4,
        optim: Optimization = Optimization(),
    ) -> None:
        super().__init__("shira", {"r": rank}, targets, last, lr, optim)
