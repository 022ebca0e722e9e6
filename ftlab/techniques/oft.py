from __future__ import annotations

from ftlab.techniques.base import LogUniform, Optimization
from ftlab.techniques.peft_technique import PeftTechnique


class OFT(PeftTechnique):
    """Train a block-diagonal rotation of each layer's input, and the head.

    Rotations keep the angles between neurons, so that what was pre-trained is disturbed little. Linear
    layers and 1x1 convolutions only: on larger ones PEFT's layer is not the identity at the start.

    Qiu, Liu, Feng, Xue, Feng, Liu, Zhang, Weller, Schölkopf (2023), https://arxiv.org/abs/2306.07280

    Args:
        block: width of the rotations; None for 32, or the largest below it that divides the widths.
        exact: rotate by the Cayley transform itself; its series (Cayley-Neumann), which is faster
            for wide blocks, drifts from a rotation as the entries grow.
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
        exact: bool = True,
        targets: list[str] | None = None,
        last: int | None = None,
        lr: float = 1e-3,
        optim: Optimization = Optimization(),
    ) -> None:
        super().__init__("oft", {"oft_block_size": block, "use_cayley_neumann": not exact}, targets, last, lr, optim)
