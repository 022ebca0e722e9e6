from __future__ import annotations

from ftlab.backbones.task_model import TaskModel
from ftlab.techniques.base import Choice, LogUniform, Optimization, Technique


class GradualUnfreezing(Technique):
    """Unfreeze from the output to the input, some blocks more each epoch.

    The first epoch trains the head and the last blocks; when all blocks are unfrozen,
    everything trains until the end. Blocks that the number of epochs does not reach stay
    frozen.

    Howard, Ruder (2018), https://arxiv.org/abs/1801.06146, section 3.3.

    Args:
        blocks_per_epoch: blocks unfrozen at the start of each epoch; the paper has 1.
        lr: peak learning rate.
        optim: optimizer, weight decay and schedule.
    """

    search_space = {"lr": LogUniform(1e-5, 5e-4), "blocks_per_epoch": Choice((1, 2, 3))}
    changes_freezing = True

    def __init__(
        self, blocks_per_epoch: int = 1, lr: float = 1e-4, optim: Optimization = Optimization()
    ) -> None:
        super().__init__(lr, optim)
        if blocks_per_epoch < 1:
            raise ValueError(f"blocks_per_epoch must be at least 1, got {blocks_per_epoch}")
        self.blocks_per_epoch = blocks_per_epoch

    def adapt(self, model: TaskModel) -> None:
        model.requires_grad_(True)

    def begin_epoch(self, model: TaskModel, epoch: int, epochs: int) -> None:
        thawed = (epoch + 1) * self.blocks_per_epoch
        for distance, block in enumerate(reversed(model.blocks)):
            block.requires_grad_(distance < thawed)
