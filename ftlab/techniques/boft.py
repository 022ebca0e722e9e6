from __future__ import annotations

from ftlab.techniques.base import LogUniform, Optimization
from ftlab.techniques.peft_technique import PeftTechnique


class BOFT(PeftTechnique):
    """Train sparse rotations of each layer's input in small blocks, its outputs' lengths, and the head.

    Take it in OFT's place for fewer numbers or for larger convolutions; its steps take half as long
    again as LoRA's. Of the paper's butterflies it has one factor: PEFT's of several need a CUDA
    compiler, and it leaves them out in silence where there is none.

    Liu, Qiu, Feng, Xiu, Xue, Yu, Feng, Liu, Heo, Peng, Wen, Black, Weller, Schölkopf (2023),
    https://arxiv.org/abs/2311.06243

    Args:
        block: width of the rotations, even; None for 4, or 2 where 4 does not divide the widths.
        targets: endings of the names of the layers to adapt, or ["all"]; None for PEFT's choice,
            every layer that it is right on where it has none.
        last: adapt the last so many blocks alone, counted from the output; None for all blocks.
        lr: peak learning rate.
        optim: optimizer, weight decay and schedule.
    """

    search_space = {"lr": LogUniform(1e-4, 5e-3)}

    def __init__(
        self,
        block: int | None = None,
        targets: list[str] | None = None,
        last: int | None = None,
        lr: float = 1e-3,
        optim: Optimization = Optimization(),
    ) -> None:
        super().__init__("boft", {"boft_block_size": block}, targets, last, lr, optim)
