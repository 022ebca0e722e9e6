from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.techniques.base import Choice, Technique


class DiscriminativeLR(Technique):
    """A wrapper: smaller learning rates towards the input, whatever the technique trains.

    A block's rate is the technique's times `decay` to the power of its distance from the head.

    Howard, Ruder (2018), https://arxiv.org/abs/1801.06146, section 3.2 (a decay of 1/2.6 for
    LSTMs; encoders take 0.65 to 0.95: Clark et al. 2020, https://arxiv.org/abs/2003.10555).

    Args:
        technique: what adapts the model and gives the head's rate.
        decay: factor from one block to the one before it, above 0 and at most 1.
    """

    search_space = {"decay": Choice((0.65, 0.75, 0.85, 0.95))}

    def __init__(self, technique: Technique, decay: float = 0.85) -> None:
        super().__init__(technique.lr, technique.optim)
        if not 0 < decay <= 1:
            raise ValueError(f"decay must be above 0 and at most 1, got {decay}")
        if not technique.trains:
            raise ValueError(f"{type(technique).__name__} trains nothing, so it has no rates")
        # Not a submodule: it holds no tensors, and Lightning would call its hooks' twins.
        object.__setattr__(self, "technique", technique)
        self.decay = decay
        self.identity_at_start = technique.identity_at_start  # type: ignore[misc]  # as wrapped
        self.changes_freezing = technique.changes_freezing  # type: ignore[misc]  # as wrapped

    technique: Technique

    def prepare(self, data: DataModule) -> None:
        self.technique.prepare(data)

    def adapt(self, model: TaskModel) -> None:
        self.technique.adapt(model)

    def param_groups(self, model: TaskModel) -> list[dict[str, Any]]:
        rates = {name: rate for rate, name in self._rates(model)}
        groups: dict[tuple[float, float], list[Any]] = {}
        by_identity = {id(p): name for name, p in model.named_parameters()}
        for group in self.technique.param_groups(model):
            for parameter in group["params"]:
                scale = rates.get(by_identity[id(parameter)], 1.0)
                key = (group["lr"] * scale, group["weight_decay"])
                groups.setdefault(key, []).append(parameter)
        return [{"params": p, "lr": lr, "weight_decay": wd} for (lr, wd), p in groups.items()]

    def _rates(self, model: TaskModel) -> list[tuple[float, str]]:
        return [
            (self.decay ** (distance + 1), name)
            for distance, block in enumerate(reversed(model.blocks))
            for name, _ in block.named_parameters()
        ]

    def lr_factors(
        self, groups: list[dict[str, Any]], total: int, epochs: int
    ) -> list[Callable[[int], float]]:
        return self.technique.lr_factors(groups, total, epochs)

    def penalty(self, model: TaskModel) -> Tensor | float:
        return self.technique.penalty(model)

    def begin_epoch(self, model: TaskModel, epoch: int, epochs: int) -> None:
        self.technique.begin_epoch(model, epoch, epochs)

    def merge(self, model: nn.Module) -> bool:
        return self.technique.merge(model)
