from __future__ import annotations

from ftlab.backbones.task_model import TaskModel
from ftlab.techniques.base import (
    LogUniform,
    Optimization,
    Technique,
    freeze_all_but_head,
    require_new_head,
)


class LinearProbe(Technique):
    """Feature extraction: train the head alone on the frozen backbone's features.

    Alain, Bengio (2016), https://arxiv.org/abs/1610.01644; as a way of transfer: Kornblith,
    Shlens, Le (2019), https://arxiv.org/abs/1805.08974.

    Args:
        lr: peak learning rate; a linear layer bears far more than a backbone.
        optim: optimizer, weight decay and schedule.
    """

    search_space = {"lr": LogUniform(1e-4, 1e-1)}
    together = "heads"

    def __init__(
        self, lr: float = 5e-3, optim: Optimization = Optimization(weight_decay=0.0)
    ) -> None:
        super().__init__(lr, optim)

    def adapt(self, model: TaskModel) -> None:
        require_new_head(model, "LinearProbe")
        freeze_all_but_head(model)
