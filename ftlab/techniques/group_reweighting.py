from __future__ import annotations

import torch
from torch import Tensor

from ftlab.backbones.task_model import Batch, TaskModel
from ftlab.data.base import DataModule
from ftlab.data.groups import GROUP
from ftlab.tasks.base import Task
from ftlab.techniques.base import Choice, Technique
from ftlab.techniques.example_weights import training_groups, weighing
from ftlab.techniques.wrapper import MOVES, WEIGHS, Wrapper


class GroupReweighting(Wrapper):
    """Have every group count alike in the loss, however many examples it has (a wrapper).

    An example of a group of n training examples counts 1 / n to the power of `strength` times as
    much, scaled to a mean of 1; where a task's loss is a mean over tokens, each of its tokens does.
    Groups are the values of the data set's column `group`. Take it as the baseline of methods for
    groups; it needs no batches of its own, as resampling does, and its gradients are noisier.

    Buda, Maki, Mazurowski (2018), https://doi.org/10.1016/j.neunet.2018.07.011; of groups: Idrissi,
    Arjovsky, Pezeshki, Lopez-Paz (2022), https://arxiv.org/abs/2110.14503

    Args:
        technique: what adapts the model.
        strength: 1 for groups that count alike, 0 for plain training, in between for less.
    """

    search_space = {"strength": Choice((0.25, 0.5, 0.75, 1.0))}
    of_training = True
    does = frozenset({WEIGHS})
    never_around = frozenset({MOVES, WEIGHS, "evaluated"})
    columns = frozenset({GROUP})

    def __init__(self, technique: Technique, strength: float = 1.0) -> None:
        super().__init__(technique)
        if not 0 <= strength <= 1:
            raise ValueError(f"strength must be from 0 to 1, got {strength}")
        self.strength = strength

    def prepare(self, data: DataModule) -> None:
        self.technique.prepare(data)
        groups = training_groups(data, "GroupReweighting")
        sizes = torch.bincount(groups.codes).double()
        weights = (1 / sizes.clamp(min=1)) ** self.strength
        self.weights = (weights / (weights * sizes).sum() * sizes.sum())[groups.codes]

    def objective(self, model: TaskModel, task: Task, batch: Batch) -> Tensor:
        if not self.strength:
            return self.technique.objective(model, task, batch)

        def weighed(losses: Tensor, parts: Tensor, batch: Batch) -> Tensor:
            return (self.weights.to(losses)[batch["index"]] * parts * losses).sum()

        return self.technique.objective(model, weighing(task, weighed), batch)
