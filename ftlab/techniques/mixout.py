from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ftlab.backbones.task_model import Batch, TaskModel
from ftlab.data.base import DataModule
from ftlab.errors import Incompatible
from ftlab.tasks.base import Task
from ftlab.techniques.base import Choice, Technique
from ftlab.techniques.trained_tensors import (
    computed_at,
    copies,
    of_backbone,
    parameters,
    require_trained_backbone,
)
from ftlab.techniques.wrapper import MOVES, PENALISES, Wrapper


class Mixout(Wrapper):
    """Compute each step with a random part of the weights back at their start (a wrapper).

    It is dropout towards the pre-trained weights w0: of the backbone's matrices all that leads out
    of an input unit is w0 with probability p, and the rest moves away from it by 1 / (1 - p), so
    that the mean is w. Validation uses w. Take it for large encoders on few examples, whose runs differ much by
    seed. Of what an adapter adds, w0 is its own start.

    Lee, Cho, Kang (2020), https://arxiv.org/abs/1909.11299

    Args:
        technique: what adapts the model.
        p: probability of w0, from 0 (plain training) to below 1; 0.7 to 0.9 in the paper.
    """

    search_space = {"p": Choice((0.5, 0.7, 0.8, 0.9))}
    of_training = True
    does = frozenset({MOVES})
    never_around = frozenset({PENALISES})  # of mixed weights it would be 1 / (1 - p) times as strong

    def __init__(self, technique: Technique, p: float = 0.7) -> None:
        super().__init__(technique)
        if not 0 <= p < 1:
            raise ValueError(f"p is a probability from 0 to below 1, got {p}")
        self.p = p
        self.start: dict[str, Tensor] = {}

    def adapt(self, model: TaskModel) -> None:
        self.technique.adapt(model)
        require_trained_backbone(model, "Mixout")
        if not _matrices(model):
            raise Incompatible("Mixout mixes matrices of the backbone, and here none of them trains",
                               "leave Mixout out, or put it around another technique")

    def begin_fit(self, model: TaskModel, data: DataModule, steps: int) -> None:
        self.technique.begin_fit(model, data, steps)
        self.start = copies(_matrices(model)) if self.p else {}

    def objective(self, model: TaskModel, task: Task, batch: Batch) -> Tensor:
        mixed = {name: self._mixed(weight, self.start[name], _unit_axis(model, name))
                 for name, weight in parameters(model).items() if name in self.start}
        loss: Tensor = computed_at(
            model, mixed, lambda model: self.technique.objective(model, task, batch))
        return loss

    def _mixed(self, weight: Tensor, start: Tensor, axis: int | None) -> Tensor:
        shape = [size if axis in (None, place) else 1 for place, size in enumerate(start.shape)]
        kept = torch.empty(shape, dtype=start.dtype, device=start.device).bernoulli_(1 - self.p)
        return start + kept * (weight - start) / (1 - self.p)


def _unit_axis(model: TaskModel, name: str) -> int | None:
    """The dimension that a layer's input units lie along; None where each entry is drawn alone."""
    layer = model.get_submodule(name.rpartition(".")[0])
    if isinstance(layer, nn.Embedding | Conv1D):
        return 0
    if isinstance(layer, nn.modules.conv._ConvNd):
        if layer.transposed or layer.groups == layer.in_channels:
            return 0
        return 1 if layer.groups == 1 else None
    return 1 if isinstance(layer, nn.Linear) else None


def _matrices(model: TaskModel) -> dict[str, Tensor]:
    return {name: p for name, p in of_backbone(model).items() if p.ndim > 1}
