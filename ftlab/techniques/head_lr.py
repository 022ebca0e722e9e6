from __future__ import annotations

from typing import Any

from ftlab.backbones.task_model import TaskModel
from ftlab.errors import Incompatible
from ftlab.techniques.base import LogUniform, Technique
from ftlab.techniques.wrapper import Wrapper


class HeadLR(Wrapper):
    """Give the head a learning rate of its own (a wrapper).

    A head starts from random numbers and the backbone from trained ones, and what a method adds to
    the backbone may want a rate far from both. Take it around methods whose rate is high, as in the
    papers of VeRA and FourierFT, whose appendices list two rates for each data set.

    Kopiczko, Blankevoort, Asano (2024), https://arxiv.org/abs/2310.11454;
    Gao et al. (2024), https://arxiv.org/abs/2405.03003.

    Args:
        technique: what adapts the model, at its own rate everywhere else.
        head_lr: of the head, above 0.
    """

    search_space = {"head_lr": LogUniform(1e-4, 1e-2)}
    of_training = True

    def __init__(self, technique: Technique, head_lr: float = 1e-3) -> None:
        super().__init__(technique)
        if head_lr <= 0:
            raise ValueError(f"head_lr must be above 0, got {head_lr}")
        self.head_lr = head_lr

    def adapt(self, model: TaskModel) -> None:
        self.technique.adapt(model)
        if not any(parameter.requires_grad for parameter in model.head.parameters()):
            raise Incompatible("HeadLR gives the head a rate of its own, and no head trains here",
                               "leave it out for this task, or take a technique that trains the head")

    def param_groups(self, model: TaskModel) -> list[dict[str, Any]]:
        head = {id(parameter) for parameter in model.head.parameters()}
        parts: list[dict[str, Any]] = []
        for group in self.technique.param_groups(model):
            rest = [p for p in group["params"] if id(p) not in head]
            own = [p for p in group["params"] if id(p) in head]
            parts += [{**group, "params": rest}] if rest else []
            parts += [{**group, "params": own, "lr": self.head_lr}] if own else []
        return parts
