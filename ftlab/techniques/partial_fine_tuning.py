from __future__ import annotations

from ftlab.backbones.task_model import TaskModel
from ftlab.errors import Incompatible
from ftlab.techniques.base import (
    Choice,
    LogUniform,
    Optimization,
    Technique,
    freeze_all_but_head,
)


class PartialFineTuning(Technique):
    """Train the last blocks and the head; the blocks before them stay frozen.

    Yosinski, Clune, Bengio, Lipson (2014), https://arxiv.org/abs/1411.1792; for encoders: Lee,
    Tang, Lin (2019), https://arxiv.org/abs/1911.03090.

    Args:
        last: how many blocks train, counted from the output.
        lr: peak learning rate.
        optim: optimizer, weight decay and schedule.
    """

    search_space = {"lr": LogUniform(1e-5, 5e-4), "last": Choice((1, 2, 3, 4))}

    def __init__(
        self, last: int = 2, lr: float = 1e-4, optim: Optimization = Optimization()
    ) -> None:
        super().__init__(lr, optim)
        if last < 1:
            raise ValueError(f"last must be at least 1, got {last}")
        self.last = last

    def adapt(self, model: TaskModel) -> None:
        blocks = model.blocks
        if self.last > len(blocks):
            raise Incompatible(
                f"PartialFineTuning(last={self.last}): the model has {len(blocks)} blocks",
                "choose a smaller `last`, or FullFineTuning",
            )
        freeze_all_but_head(model)
        for block in blocks[-self.last :]:
            block.requires_grad_(True)
