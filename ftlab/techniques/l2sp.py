from __future__ import annotations

from typing import Any

from torch import Tensor

from ftlab.backbones.task_model import Batch, TaskModel
from ftlab.data.base import DataModule
from ftlab.tasks.base import Task
from ftlab.techniques.base import LogUniform, Technique
from ftlab.techniques.trained_tensors import copies, of_backbone, parameters
from ftlab.techniques.wrapper import PENALISES, Wrapper


class L2SP(Wrapper):
    """Pull what trains back to where it started, not to zero as weight decay does (a wrapper).

    It adds alpha / 2 |w - w0|^2 for the backbone, where w0 are the weights before the fit, and
    beta / 2 |w|^2 for the new head, which has no good start. Weight decay is left out for what
    is so held. Take it with few examples, where full fine-tuning forgets what the backbone knew.
    Vectors (biases, norms) are held too, which the authors leave alone. What an adapter adds is
    held near its own start, at which it changes nothing.

    Li, Grandvalet, Davoine (2018), https://arxiv.org/abs/1802.01483

    Args:
        technique: what adapts the model.
        alpha: strength for the backbone, 0 or more (1e-3 to 1 in the paper); 0 leaves it alone.
        beta: strength for the head, 0 or more; 0 leaves it alone.
    """

    search_space = {"alpha": LogUniform(1e-3, 1.0)}
    of_training = True
    does = frozenset({PENALISES})

    def __init__(self, technique: Technique, alpha: float = 0.1, beta: float = 0.01) -> None:
        super().__init__(technique)
        for name, value in (("alpha", alpha), ("beta", beta)):
            if value < 0:
                raise ValueError(f"{name} must be 0 or more, got {value}")
        self.alpha, self.beta = alpha, beta
        self.start: dict[str, Tensor] = {}

    def param_groups(self, model: TaskModel) -> list[dict[str, Any]]:
        head = {id(parameter) for parameter in model.head.parameters()}
        of_model = {id(parameter) for parameter in model.parameters()}  # something may train beside

        def held(parameter: Tensor) -> bool:
            return (self.beta if id(parameter) in head else self.alpha) > 0 and \
                id(parameter) in of_model

        parts: list[dict[str, Any]] = []
        for group in self.technique.param_groups(model):
            rest = [p for p in group["params"] if not held(p)]
            parts += [{**group, "params": rest}] if rest else []
            own = [p for p in group["params"] if held(p)]
            parts += [{**group, "params": own, "weight_decay": 0.0}] if own else []
        return parts

    def begin_fit(self, model: TaskModel, data: DataModule, steps: int) -> None:
        self.technique.begin_fit(model, data, steps)
        self.start = copies(of_backbone(model)) if self.alpha else {}

    def objective(self, model: TaskModel, task: Task, batch: Batch) -> Tensor:
        loss = self.technique.objective(model, task, batch)
        for name, parameter in parameters(model).items():
            if name in self.start:
                moved = parameter - self.start[name]
                loss = loss + self.alpha / 2 * moved.square().sum()
            elif self.beta and model.head.holds(name):
                loss = loss + self.beta / 2 * parameter.square().sum()
        return loss
