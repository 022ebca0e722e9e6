from __future__ import annotations

from ftlab.techniques.base import Choice, LogUniform, Optimization
from ftlab.techniques.peft_technique import PeftTechnique


class FourierFT(PeftTechnique):
    """Train a few coefficients of each update's Fourier transform, and the head.

    Their places are drawn from the run's seed. It does not start as the backbone: the coefficients
    start at random, as in the paper. Take it for the smallest checkpoints. Linear layers only.

    Gao, Wang, Chen, Liu, Wu, Chen, Li (2024), https://arxiv.org/abs/2405.03003

    Args:
        frequencies: coefficients per layer; None for 1000, or for all of a smaller layer.
        scaling: factor of the update.
        targets: endings of the names of the layers to adapt, or ["all"]; None for PEFT's choice,
            every layer that it is right on where it has none.
        last: adapt the last so many blocks alone, counted from the output; None for all blocks.
        lr: peak learning rate; 10 to 100 times LoRA's.
        optim: optimizer, weight decay and schedule.
    """

    search_space = {"lr": LogUniform(5e-3, 5e-1), "scaling": Choice((50.0, 150.0, 300.0))}

    def __init__(
        self,
        frequencies: int | None = None,
        scaling: float = 150.0,
        targets: list[str] | None = None,
        last: int | None = None,
        lr: float = 3e-2,
        optim: Optimization = Optimization(),
    ) -> None:
        super().__init__("fourierft", {"n_frequency": frequencies, "scaling": scaling}, targets, last, lr, optim)
