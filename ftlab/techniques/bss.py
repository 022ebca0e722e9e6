from __future__ import annotations

import torch
from torch import Tensor

from ftlab.backbones.task_model import Batch, TaskModel
from ftlab.data.base import DataModule
from ftlab.errors import Incompatible
from ftlab.tasks.base import Task
from ftlab.tasks.losses.base import at_least_float32
from ftlab.techniques.base import LogUniform, Technique
from ftlab.techniques.trained_tensors import require_trained_backbone
from ftlab.techniques.wrapper import MOVES, Wrapper


class BSS(Wrapper):
    """Shrink the smallest singular values of a batch's features (a wrapper).

    Batch spectral shrinkage adds strength times the sum of the k smallest squared singular values
    of the features (B, D) that the head reads: what is weak in them transfers badly. Take it with
    few examples, where full fine-tuning does worse than a fixed backbone. Batches of at most k
    examples have no small ones apart, and are left alone.

    Chen, Wang, Fu, Long, Wang (2019),
    https://proceedings.neurips.cc/paper/2019/hash/c6bff625bdb0393992c9d4db0c6bbe45-Abstract.html

    Args:
        technique: what adapts the model.
        strength: of what is added (eta in the paper), 0 or more; 0 is plain training.
        k: number of singular values, at least 1.
    """

    search_space = {"strength": LogUniform(1e-4, 1e-1)}
    of_training = True
    never_around = frozenset({MOVES})
    single_batches = True

    def __init__(self, technique: Technique, strength: float = 1e-3, k: int = 1) -> None:
        super().__init__(technique)
        if strength < 0:
            raise ValueError(f"strength must be 0 or more, got {strength}")
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        self.strength, self.k = strength, k

    def prepare(self, data: DataModule) -> None:
        self.technique.prepare(data)
        if data.task.output_type != "vector":
            raise Incompatible("BSS shrinks one vector of features an example, and the task "
                               f"{type(data.task).__name__} has more", "leave it out for this task")

    def adapt(self, model: TaskModel) -> None:
        self.technique.adapt(model)
        if not any(True for _ in model.head.parameters()):
            raise Incompatible("BSS shrinks what a new head reads, and this task keeps the "
                               "pre-trained output layer", "leave it out for this task")
        require_trained_backbone(model, "BSS")

    def objective(self, model: TaskModel, task: Task, batch: Batch) -> Tensor:
        with model.watching() as passes:
            loss = self.technique.objective(model, task, batch)
        features = passes[0].features
        if not self.strength or min(features.shape) <= self.k:
            return loss
        return loss + self.strength * smallest(features, self.k)


def smallest(features: Tensor, k: int) -> Tensor:
    """Sum of the k smallest squared singular values of a matrix."""
    return torch.linalg.svdvals(at_least_float32(features))[-k:].square().sum()
