from __future__ import annotations

import torch
from torch import Tensor

from ftlab.backbones.passes import Watched
from ftlab.backbones.task_model import Batch, TaskModel
from ftlab.data.base import DataModule
from ftlab.errors import Incompatible
from ftlab.tasks.base import Task
from ftlab.tasks.losses.base import log_probabilities
from ftlab.techniques.base import LogUniform, Technique
from ftlab.techniques.trained_tensors import (
    computed_at,
    copies,
    in_eval_mode,
    parameters,
    require_trained_backbone,
    statistics,
)
from ftlab.techniques.wrapper import MOVES, Wrapper


class LwF(Wrapper):
    """Keep what the network says of the new examples near what it said before the fit (a wrapper).

    Learning without forgetting adds strength * T^2 * KL(p | q), where p and q are the old and the
    new network's probabilities, their logits divided by the temperature T. The old network is as
    it was before the fit, and computes every batch once more, without gradients. Take it where the
    model must keep what it could do and no example of that is at hand.

    The outputs compared are those of a head that a stage has trained. Of a new head, which says
    nothing yet, its features stand for them: with as many as an encoder has, what is added is
    about half their mean squared change, so that it takes a far larger strength.

    Li, Hoiem (2018), https://arxiv.org/abs/1606.09282

    Args:
        technique: what adapts the model.
        strength: of what is added (lambda in the paper), 0 or more; 0 is plain training.
        temperature: divides the logits, above 0.
    """

    search_space = {"strength": LogUniform(1e-1, 1e3)}
    of_training = True
    never_around = frozenset({MOVES})

    def __init__(self, technique: Technique, strength: float = 1.0,
                 temperature: float = 2.0) -> None:
        super().__init__(technique)
        if strength < 0:
            raise ValueError(f"strength must be 0 or more, got {strength}")
        if temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        self.strength, self.temperature = strength, temperature
        self.start: dict[str, Tensor] = {}

    def prepare(self, data: DataModule) -> None:
        self.technique.prepare(data)
        if data.task.output_type != "vector":
            raise Incompatible("LwF compares one vector an example, and the task "
                               f"{type(data.task).__name__} has more", "leave it out for this task")
        self.one_class = data.task.one_class

    def adapt(self, model: TaskModel) -> None:
        self.technique.adapt(model)
        self.of_features = model.has_random_head
        if self.of_features:
            require_trained_backbone(model, "LwF")
        elif not self.one_class:
            raise Incompatible("LwF compares probabilities of classes, and this task has no class "
                               "an example", "leave it out for this task")

    def begin_fit(self, model: TaskModel, data: DataModule, steps: int) -> None:
        self.technique.begin_fit(model, data, steps)
        # a fit within the fit may find a head that an earlier one has trained
        self.of_features = model.has_random_head or not self.one_class
        self.start = copies(parameters(model) | statistics(model)) if self.strength else {}

    def objective(self, model: TaskModel, task: Task, batch: Batch) -> Tensor:
        if not self.strength:
            return self.technique.objective(model, task, batch)
        with model.watching() as passes:
            loss = self.technique.objective(model, task, batch)
        with torch.no_grad(), in_eval_mode(model):
            then = computed_at(model, self.start, lambda model: model.watched(batch))
        return loss + self.strength * divergence(self._said(then), self._said(passes[0]),
                                                 self.temperature)

    def _said(self, watched: Watched) -> Tensor:
        said: Tensor = watched.features if self.of_features else watched.outputs
        return said


def divergence(old: Tensor, new: Tensor, temperature: float) -> Tensor:
    """T^2 times the Kullback-Leibler divergence of old from new, mean over examples.

    As T grows it becomes half the squared distance of the logits, each less its mean, over C.

    Args:
        old: logits (B, C).
        new: likewise.
        temperature: T.
    """
    p, q = (log_probabilities(logits / temperature) for logits in (old, new))
    return temperature ** 2 * (p.exp() * (p - q)).sum(dim=1).mean()
