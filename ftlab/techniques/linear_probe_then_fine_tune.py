from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ftlab.backbones.task_model import TaskModel
from ftlab.techniques.base import LogUniform, Optimization, Technique, require_new_head


class LinearProbeThenFineTune(Technique):
    """LP-FT: train the head on the frozen backbone first, then everything.

    A random head would send large, wrong gradients into good features; a trained one does not.
    Each phase has a learning rate schedule of its own.

    Kumar, Raghunathan, Jones, Ma, Liang (2022), https://arxiv.org/abs/2202.10054.

    Args:
        probe_epochs: fraction of the epochs that train the head alone, at least one epoch.
        probe_lr: peak rate of the head in the first phase.
        lr: peak rate of everything in the second phase.
        optim: optimizer, weight decay and schedule.
    """

    search_space = {"lr": LogUniform(1e-5, 2e-4), "probe_lr": LogUniform(1e-3, 3e-2)}
    changes_freezing = True

    def __init__(
        self,
        probe_epochs: float = 0.34,
        probe_lr: float = 5e-3,
        lr: float = 5e-5,
        optim: Optimization = Optimization(),
    ) -> None:
        super().__init__(lr, optim)
        if not 0 < probe_epochs < 1:
            raise ValueError(f"probe_epochs is a fraction between 0 and 1, got {probe_epochs}")
        if probe_lr <= 0:
            raise ValueError(f"probe_lr must be above 0, got {probe_lr}")
        self.probe_epochs = probe_epochs
        self.probe_lr = probe_lr

    def adapt(self, model: TaskModel) -> None:
        require_new_head(model, "LinearProbeThenFineTune")
        model.requires_grad_(True)

    def probing(self, epochs: int) -> int:
        """Epochs of the first phase."""
        return max(1, round(self.probe_epochs * epochs))

    def begin_epoch(self, model: TaskModel, epoch: int, epochs: int) -> None:
        for block in model.blocks:
            block.requires_grad_(epoch >= self.probing(epochs))

    def lr_factors(
        self, groups: list[dict[str, Any]], total: int, epochs: int
    ) -> list[Callable[[int], float]]:
        # One factor for all groups: in the first phase the backbone's have no gradient.
        switch = round(total * self.probing(epochs) / epochs)

        def factor(step: int) -> float:
            if step < switch:
                return self.probe_lr / self.lr * self.optim.factor(step, switch)
            return self.optim.factor(step - switch, max(1, total - switch))

        return [factor] * len(groups)
