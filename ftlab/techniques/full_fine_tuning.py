from __future__ import annotations

from ftlab.backbones.task_model import TaskModel
from ftlab.techniques.base import LogUniform, Optimization, Technique


class FullFineTuning(Technique):
    """Train every parameter: what all cheaper techniques are measured against.

    Devlin, Chang, Lee, Toutanova (2019), https://arxiv.org/abs/1810.04805, whose appendix
    gives the usual rates for encoders: 2e-5 to 5e-5.

    Args:
        lr: peak learning rate.
        optim: optimizer, weight decay and schedule.
    """

    search_space = {"lr": LogUniform(1e-5, 2e-4)}

    def __init__(self, lr: float = 5e-5, optim: Optimization = Optimization()) -> None:
        super().__init__(lr, optim)

    def adapt(self, model: TaskModel) -> None:
        model.requires_grad_(True)
