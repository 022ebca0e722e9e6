from __future__ import annotations

from ftlab.techniques.base import LogUniform, Optimization
from ftlab.techniques.peft_technique import PeftTechnique


class C3A(PeftTechnique):
    """Train block-circulant updates (circular convolutions) of the weights, and the head.

    It does not start as the backbone: the kernels start at random, as in the paper. Take it for
    updates of high rank from few numbers. Linear layers only.

    Chen, Cheng, Liu, Gao, Tsung, Li, Li (2024), https://arxiv.org/abs/2407.19342

    Args:
        block: width of the circulant blocks, which the layers' widths are multiples of; None for 256,
            or the largest below it.
        targets: endings of the names of the layers to adapt, or ["all"]; None for PEFT's choice,
            every layer that it is right on where it has none.
        last: adapt the last so many blocks alone, counted from the output; None for all blocks.
        lr: peak learning rate.
        optim: optimizer, weight decay and schedule.
    """

    search_space = {"lr": LogUniform(1e-2, 5.0)}

    def __init__(
        self,
        block: int | None = None,
        targets: list[str] | None = None,
        last: int | None = None,
        lr: float = 1e-1,
        optim: Optimization = Optimization(),
    ) -> None:
        super().__init__("c3a", {"block_size": block}, targets, last, lr, optim)
